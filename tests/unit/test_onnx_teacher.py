"""Any ONNX detector as a teacher: run as it is, on pictures normalised its own way."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from ocr_ray.config import CMLConfig, override
from ocr_ray.data.normalize import NormalizeConfig, normalize, renormalize
from ocr_ray.engine.teacher import Teacher, packed
from ocr_ray.errors import ConfigError, WeightsError
from ocr_ray.export.write import export
from ocr_ray.losses.dila import teacher_target
from ocr_ray.model_card import ModelCard, save_detector
from ocr_ray.models.detector import Detector, DetectorConfig
from ocr_ray.models.distillation import CMLTriple
from ocr_ray.models.onnx_detector import OnnxDetector
from ocr_ray.recipes import build_model, load_teacher

HALF = NormalizeConfig(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
WEIGHTS = np.random.default_rng(0).normal(0, 1, (1, 3, 3, 3)).astype(np.float32)


def detector_file(folder: Path, last: str = "Sigmoid", stride: int = 1) -> Path:
    """A convolution of 3x3 and a sigmoid, in an ONNX file that no reader of weights here knows."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], strides=[stride, stride]),
        helper.make_node(last, ["y"], ["p"]),
    ]
    sides = ["n", 3, "h", "w"], ["n", 1, "h2", "w2"]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sides[0])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, sides[1])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    path = folder / "detector.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


def pictures(number: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (number, 3, 32, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def cfg(path: Path, *settings: str) -> CMLConfig:
    changed = override(CMLConfig(), [f"teacher.weights={path}", *settings])
    assert isinstance(changed, CMLConfig)
    return changed


def test_it_answers_as_its_graph_says(tmp_path: Path) -> None:
    images = normalize(pictures(), HALF)
    expected = torch.sigmoid(torch.nn.functional.conv2d(images, torch.from_numpy(WEIGHTS), padding=1))[:, 0]
    torch.testing.assert_close(OnnxDetector(detector_file(tmp_path)).shrink_map(images), expected, rtol=0, atol=1e-6)


def test_a_trial_sees_its_answers_to_pictures_normalised_its_own_way(tmp_path: Path) -> None:
    """Live in the triple, and as the producer of stored answers asks it: the same bits."""
    path = detector_file(tmp_path)
    config = cfg(path, "teacher.normalize={mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}")
    loaded = load_teacher(config.teacher)
    assert loaded.normalize == HALF
    assert loaded.notes == ("the teacher detector.onnx is none of the nets known here; onnxruntime runs it as it is",)
    built = build_model(config)
    assert built.teacher_normalize == HALF
    assert isinstance(built.model, CMLTriple)
    with torch.no_grad():
        live = built.model(normalize(pictures(), config.data.normalize)).teacher_shrink
    assert live is not None
    alone = OnnxDetector(path).shrink_map(normalize(pictures(), HALF))
    assert torch.equal(live, alone)
    stored = Teacher(loaded.net, loaded.normalize, 0.3, torch.device("cpu"))(pictures())
    assert torch.equal(stored, packed(teacher_target(live, 0.3)))


def test_a_file_that_was_exported_here_is_fed_as_its_card_says(tmp_path: Path) -> None:
    student, out = tmp_path / "student.safetensors", tmp_path / "out.onnx"
    save_detector(student, Detector(DetectorConfig()), ModelCard())
    export(student, out, normalize="inside")
    loaded = load_teacher(cfg(out).teacher)
    assert loaded.normalize == HALF
    assert loaded.notes == ("the teacher out.onnx was exported here; onnxruntime runs it as it is",)
    own = load_teacher(cfg(student).teacher)
    with torch.no_grad():
        expected = own.net.shrink_map(normalize(pictures(), own.normalize))
    torch.testing.assert_close(loaded.net.shrink_map(normalize(pictures(), HALF)), expected, rtol=0, atol=1e-4)
    assert load_teacher(cfg(out, "teacher.normalize={mean: [0, 0, 0], std: [1, 1, 1]}").teacher).normalize != HALF


def test_renormalising_is_exact() -> None:
    given, images = NormalizeConfig(), pictures()
    assert torch.equal(renormalize(normalize(images, given), given, HALF), normalize(images, HALF))
    assert torch.equal(renormalize(normalize(images, HALF), HALF, given), normalize(images, given))


@pytest.mark.parametrize(("last", "stride"), [("Identity", 1), ("Sigmoid", 2)])
def test_one_that_answers_something_else_is_refused(tmp_path: Path, last: str, stride: int) -> None:
    """When it is loaded: before anything has started. The one that answers black by 0 is found out later."""
    with pytest.raises(WeightsError, match=r"detector\.onnx: answered .* expected probabilities \(\d, 1, \d+, 64\)"):
        OnnxDetector(detector_file(tmp_path, last, stride)).shrink_map(normalize(pictures(), HALF))


def test_one_that_takes_no_pictures_is_refused(tmp_path: Path) -> None:
    path = detector_file(tmp_path)
    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((1, 4, 3, 3), np.float32), "w"))
    onnx.save(model, str(path))
    with pytest.raises(WeightsError, match=r"detector\.onnx: takes no picture \(1, 3, H, W\): "):
        OnnxDetector(path)


def test_a_file_that_cannot_be_run_is_one_line(tmp_path: Path) -> None:
    path = detector_file(tmp_path, last="NoSuchOperator")
    with pytest.raises(WeightsError, match=r"detector\.onnx: onnxruntime cannot run it: ") as error:
        load_teacher(cfg(path).teacher)
    assert "\n" not in str(error.value)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(WeightsError, match=r"detector\.onnx: not a whole ONNX file: "):
        load_teacher(cfg(path).teacher)
    with pytest.raises(WeightsError, match=r"absent\.onnx: no such file"):
        load_teacher(cfg(tmp_path / "absent.onnx").teacher)


def test_what_it_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.batch_stats: expected nothing for a file that onnxruntime runs"):
        load_teacher(cfg(detector_file(tmp_path), "teacher.batch_stats=true").teacher)


def test_arrays_in_other_files_are_refused(tmp_path: Path) -> None:
    """Another net under the same digest otherwise, and a path of the file's own choice."""
    path = detector_file(tmp_path)
    onnx.save(onnx.load(str(path)), str(path), save_as_external_data=True, location="arrays", size_threshold=0)
    with pytest.raises(WeightsError, match=r"detector\.onnx: keeps its arrays in other files"):
        load_teacher(cfg(path).teacher)
