"""The released detector as ONNX; the file is built here as the exporter built it, with other numbers."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ocr_ray.errors import WeightsError
from ocr_ray.models.detector import Detector, DetectorConfig
from ocr_ray.weights.keymap import to_paddle
from ocr_ray.weights.load import load_file, read_weights
from ocr_ray.weights.onnx_in import FIELDS, layers, read_onnx

Arrays = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    """Random arrays under PaddleOCR's names, without the branch that the exported net lacks."""
    rng = np.random.default_rng(0)
    state = Detector(DetectorConfig()).state_dict()
    return {
        to_paddle(name): rng.standard_normal(tuple(tensor.shape)).astype(np.float32)
        for name, tensor in state.items()
        if not name.startswith("head.thresh.")
    }


def exported(arrays: Arrays, first: int = 0, as_initializers: bool = False) -> onnx.ModelProto:
    """A graph with the released file's Constant nodes (in no order) and one node for each layer."""
    nodes, tensors = [], []
    for kind, prefixes in layers().items():
        for number, prefix in enumerate(prefixes, first):
            inputs = [f"{kind}_{number}.tmp"]
            for theirs, ours in FIELDS[kind].items():
                if f"{prefix}.{ours}" in arrays:
                    name = f"{kind}_{number}.{theirs}"
                    array = arrays[f"{prefix}.{ours}"]
                    tensors.append(helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.ravel()))
                    inputs.append(name)
            operator = {"conv2d": "Conv", "conv2d_transpose": "ConvTranspose", "batch_norm": "BatchNormalization"}[kind]
            nodes.append(helper.make_node(operator, inputs, [f"{prefix}.out"]))
    rng = np.random.default_rng(1)
    rng.shuffle(tensors)  # type: ignore[arg-type]
    other = numpy_helper.from_array(np.float32(6), "Constant_0")
    constants = [helper.make_node("Constant", [], [t.name], value=t) for t in [other, *tensors]]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, None, None])
    graph = helper.make_graph(
        nodes if as_initializers else [*constants, *nodes], "PaddlePaddle Graph 0", [x], [],
        initializer=tensors if as_initializers else [],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)])


@pytest.mark.parametrize("first", [0, 117])
@pytest.mark.parametrize("as_initializers", [False, True])
def test_every_array_comes_back_under_its_name(
    tmp_path: Path, arrays: Arrays, first: int, as_initializers: bool
) -> None:
    onnx.save(exported(arrays, first, as_initializers), tmp_path / "a.onnx")
    read = read_onnx(tmp_path / "a.onnx")
    assert len(read) == 288
    assert read.keys() == arrays.keys()
    assert all(read[name].tobytes() == array.tobytes() for name, array in arrays.items())


def test_a_student_starts_from_it_but_for_the_missing_branch(tmp_path: Path, arrays: Arrays) -> None:
    onnx.save(exported(arrays), tmp_path / "a.onnx")
    file = read_weights(tmp_path / "a.onnx")
    detector = Detector(DetectorConfig())
    with pytest.raises(WeightsError, match=r"missing head\.thresh\.\* \(13\)"):
        load_file(detector, file, "Student")
    coverage = load_file(detector, file, "Student", may_be_new=["head.thresh"])
    assert len(coverage.matched) == 288
    running = detector.state_dict()["backbone.stage3.3.bn.running_var"].numpy()
    np.testing.assert_array_equal(running, arrays["backbone.stage3.3.bn._variance"])


def test_a_net_with_other_layers_says_what_was_seen(tmp_path: Path, arrays: Arrays) -> None:
    fewer = {name: array for name, array in arrays.items() if not name.startswith("neck.inp_conv.3.")}
    onnx.save(exported(fewer), tmp_path / "a.onnx")
    with pytest.raises(WeightsError, match="has weights of 69 conv2d, 2 conv2d_transpose, 49 batch_norm; only the rel"):
        read_onnx(tmp_path / "a.onnx")


def test_a_net_whose_normalisations_were_folded_says_so(tmp_path: Path, arrays: Arrays) -> None:
    folded = {name: array for name, array in arrays.items() if "bn" not in name}
    onnx.save(exported(folded), tmp_path / "a.onnx")
    with pytest.raises(WeightsError, match="0 batch_norm; only the released"):
        read_onnx(tmp_path / "a.onnx")


def test_an_array_that_is_lacking_is_found_when_it_is_loaded(tmp_path: Path, arrays: Arrays) -> None:
    lacking = {name: array for name, array in arrays.items() if name != "backbone.conv.bn._mean"}
    onnx.save(exported(lacking), tmp_path / "a.onnx")
    with pytest.raises(WeightsError, match=r"missing backbone\.conv\.bn\.running_mean"):
        load_file(Detector(DetectorConfig()), read_weights(tmp_path / "a.onnx"), "net", may_be_new=["head.thresh"])


@pytest.mark.parametrize("content", [b"", b"hello world, this is not protobuf", b"\x08\x07\x12\x04test"])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.onnx: not (a whole|an) ONNX file") as caught:
        read_onnx(tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)


def test_a_cut_file_is_refused(tmp_path: Path, arrays: Arrays) -> None:
    content = exported(arrays).SerializeToString()
    for kept in (10, len(content) // 2, len(content) - 1):
        (tmp_path / "a.onnx").write_bytes(content[:kept])
        with pytest.raises(WeightsError, match=r"a\.onnx: "):
            read_onnx(tmp_path / "a.onnx")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"a\.onnx: no such file"):
        read_onnx(tmp_path / "a.onnx")


def test_arrays_in_files_beside_are_not_followed(tmp_path: Path, arrays: Arrays) -> None:
    model = exported(arrays)
    tensor = next(n for n in model.graph.node if n.output[0] == "conv2d_0.w_0").attribute[0].t
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(WeightsError, match=r"a\.onnx: keeps its arrays in other files"):
        read_onnx(tmp_path / "a.onnx")


def test_an_array_of_a_type_that_onnx_does_not_have_is_refused(tmp_path: Path, arrays: Arrays) -> None:
    model = exported(arrays)
    next(n for n in model.graph.node if n.output[0] == "conv2d_0.w_0").attribute[0].t.data_type = 77
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match=r"a\.onnx: not a whole ONNX file: conv2d_0\.w_0 is no array: ") as caught:
        read_onnx(tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)


def test_a_constant_that_goes_nowhere_is_passed_over(tmp_path: Path, arrays: Arrays) -> None:
    model = exported(arrays)
    model.graph.node.insert(0, helper.make_node("Constant", [], [], value=numpy_helper.from_array(np.float32(6))))
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    assert read_onnx(tmp_path / "a.onnx").keys() == arrays.keys()


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, arrays: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(exported(arrays), tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)  # what Python keeps of a package that cannot be imported
    with pytest.raises(WeightsError, match=r"needs the package onnx: pip install 'ocr-ray\[onnx\]'"):
        read_weights(tmp_path / "a.onnx")


def test_the_released_file_holds_the_stored_arrays(golden_file: Callable[[str], Path]) -> None:
    """OCR_RAY_ONNX names `ch_PP-OCRv3_det_infer.onnx`, e.g. out of the wheel rapidocr-onnxruntime 1.2.3."""
    if "OCR_RAY_ONNX" not in os.environ:
        pytest.skip("OCR_RAY_ONNX names no file")
    expected = np.load(golden_file("ppocrv3_det_student_real.npz"))
    read = read_onnx(Path(os.environ["OCR_RAY_ONNX"]))
    assert read.keys() == set(expected.files)
    assert all(read[name].tobytes() == expected[name].tobytes() for name in expected.files)
