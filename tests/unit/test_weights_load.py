"""Arrays into nets: all of them, or an error that says what is wrong and what would have helped."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console

from ocr_ray.errors import WeightsError
from ocr_ray.models.detector import Detector, DetectorConfig
from ocr_ray.models.lkpan import LKPANConfig
from ocr_ray.models.mobilenet_v3 import MobileNetV3Config
from ocr_ray.models.resnet_vd import ResNetVdConfig
from ocr_ray.weights.coverage import coverage_table, grouped
from ocr_ray.weights.extract import write_weights
from ocr_ray.weights.keymap import to_paddle
from ocr_ray.weights.load import load_file, load_into, read_weights
from ocr_ray.weights.pdparams import write_pdparams

Arrays = dict[str, NDArray[np.float32]]
SMALL_TEACHER = DetectorConfig(ResNetVdConfig(layers=18, width=0.25), LKPANConfig(out_channels=32, mode="lite"))


def arrays_of(net: torch.nn.Module) -> Arrays:
    return {name: tensor.numpy().copy() for name, tensor in net.state_dict().items()}


def changed(net: torch.nn.Module, before: Arrays) -> list[str]:
    return [name for name, tensor in net.state_dict().items() if not np.array_equal(tensor.numpy(), before[name])]


@pytest.fixture
def net() -> Detector:
    torch.manual_seed(1)
    return Detector(DetectorConfig())


@pytest.fixture
def arrays() -> Arrays:
    torch.manual_seed(2)
    rng = np.random.default_rng(0)
    # Every value differs from a fresh net's, the ones and zeros of its normalisations included.
    return {
        name: array + rng.uniform(0.1, 0.2, array.shape).astype(np.float32)
        for name, array in arrays_of(Detector(DetectorConfig())).items()
    }


def test_a_whole_set_goes_in(net: Detector, arrays: Arrays) -> None:
    coverage = load_into(net, arrays, "all of it")
    assert coverage.whole
    assert len(coverage.matched) == len(arrays)
    assert coverage.one_line() == f"{len(arrays)} of {len(arrays)} arrays matched"
    assert changed(net, arrays) == []


def test_num_batches_tracked_is_ignored(arrays: Arrays) -> None:
    plain = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    stored = {name: array for name, array in arrays_of(plain).items() if "batches" not in name}
    assert load_into(plain, stored, "plain").whole


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda a: a.pop("neck.ins_conv.0.in_conv.weight"),
         r"file: 300 of 301 arrays matched; missing neck\.ins_conv\.0\.in_conv"),
        (lambda a: [a.pop(n) for n in list(a) if n.startswith("head.thresh.")],
         r"missing head\.thresh\.\* \(13\); to start head\.thresh anew, say that it may be new"),
        (lambda a: a.update({"head.extra.weight": a["head.binarize.conv3.bias"]}), r"unexpected head\.extra\.\* \(1\)"),
        (lambda a: a.update({"head.binarize.conv3.bias": np.zeros(2, np.float32)}),
         r"misshapen head\.binarize\.conv3\.bias \[2\] for \[1\]"),
        (lambda a: a["head.binarize.conv3.bias"].fill(np.nan),
         r"1 arrays hold values that are not finite: head\.binarize\.conv3\.bias"),
    ],
)  # fmt: skip
def test_anything_short_of_whole_is_an_error_and_changes_nothing(
    net: Detector, arrays: Arrays, spoil: object, said: str
) -> None:
    before = arrays_of(net)
    spoil(arrays)  # type: ignore[operator]
    with pytest.raises(WeightsError, match=said) as caught:
        load_into(net, arrays, "file")
    assert "\n" not in str(caught.value)
    assert changed(net, before) == []


def test_what_may_be_new_need_not_be_there(net: Detector, arrays: Arrays) -> None:
    before = arrays_of(net)
    for name in list(arrays):
        if name.startswith("head.thresh."):
            del arrays[name]
    arrays["neck.inp_conv.0.in_conv.weight"] = np.zeros((1, 1, 3, 3), np.float32)  # of another net's neck
    arrays["neck.more.weight"] = np.zeros(1, np.float32)
    coverage = load_into(net, arrays, "file", ["head.thresh", "neck"])
    assert coverage.whole
    assert set(coverage.new) == {n for n in before if n.startswith("head.thresh.")} | {"neck.inp_conv.0.in_conv.weight"}
    assert set(changed(net, before)) == set(before) - set(coverage.new)


def test_a_prefix_ends_at_a_dot(net: Detector, arrays: Arrays) -> None:
    del arrays["head.thresh.conv1.weight"]
    with pytest.raises(WeightsError, match=r"'head\.thr' may be new, but no part .* did you mean 'head\.thresh'"):
        load_into(net, arrays, "file", ["head.thr"])


@pytest.mark.parametrize("prefix", ["model.", "module.student.", "Studnet."])
def test_the_prefix_that_would_have_matched_is_named(net: Detector, arrays: Arrays, prefix: str) -> None:
    prefixed = {prefix + name: array for name, array in arrays.items()}
    with pytest.raises(WeightsError, match=rf"301 would have matched without the prefix '{prefix}'"):
        load_into(net, prefixed, "file")


def test_a_prefix_that_is_lacking_is_named(net: Detector, arrays: Arrays) -> None:
    backbone = {name.removeprefix("backbone."): a for name, a in arrays.items() if name.startswith("backbone.")}
    with pytest.raises(WeightsError, match=rf"{len(backbone)} would have matched with the prefix 'backbone\.'"):
        load_into(net, backbone, "file", ["neck", "head"])


def test_nothing_at_all_is_an_error_even_when_all_may_be_new(net: Detector) -> None:
    with pytest.raises(WeightsError, match="nothing matched"):
        load_into(net, {}, "file", ["backbone", "neck", "head"])


def test_names_are_told_in_groups() -> None:
    names = ["a.b.c", "a.b.d", "a.e", "f.g"]
    assert grouped(["a.b.c", "a.b.d"], names) == "a.b.* (2)"
    assert grouped(["a.b.c", "a.b.d", "a.e"], names) == "a.* (3)"
    assert grouped(["a.b.d", "f.g"], names) == "a.b.d, f.* (1)"


def test_many_groups_are_shortened() -> None:
    names = [f"x{n}.{part}" for n in range(9) for part in "ab"]
    assert grouped([name for name in names if name.endswith("a")], names) == "x0.a, x1.a, x2.a, x3.a and 5 more"


def test_the_table_counts_and_notes(net: Detector, arrays: Arrays) -> None:
    whole = load_into(net, arrays, "file into Student")
    for name in list(arrays):
        if name.startswith("head.thresh."):
            del arrays[name]
    part = load_into(net, arrays, "file into Student2", ["head.thresh"])
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(coverage_table([whole, part]))
    lines = console.export_text().splitlines()
    (first,) = [line for line in lines if "Student " in line]
    (second,) = [line for line in lines if "Student2" in line]
    assert [cell.strip() for cell in first.split("│")[2:6]] == ["301", "0", "0", "0"]
    assert [cell.strip() for cell in second.split("│")[2:6]] == ["288", "13", "0", "0"]
    assert "missing head.thresh.* (13) (may be new)" in second


# Files


def test_a_folder_is_read_as_a_checkpoint(tmp_path: Path, arrays: Arrays, net: Detector) -> None:
    write_weights(tmp_path / "model.safetensors", {"Student": arrays, "Student2": arrays}, {"state": "{}"})
    file = read_weights(tmp_path)
    assert list(file.arrays) == ["Student", "Student2"]
    assert file.metadata == {"state": "{}"}
    assert load_file(net, file, "net", "Student2").what == f"{tmp_path}/model.safetensors (Student2) into net"
    with pytest.raises(WeightsError, match=r"model\.safetensors: no such file"):
        read_weights(tmp_path / "..")


@pytest.mark.parametrize("suffix", [".safetensors", ".pdparams", ".npz"])
def test_paddle_names_and_ours_are_both_read(tmp_path: Path, arrays: Arrays, net: Detector, suffix: str) -> None:
    for style in (str, to_paddle):
        named = {f"Teacher.{style(name)}": array for name, array in arrays.items()}
        path = tmp_path / f"a{suffix}"
        match suffix:
            case ".npz":
                np.savez(path, **named)  # type: ignore[arg-type]
            case ".pdparams":
                write_pdparams(path, named)
            case _:
                write_weights(path, {"": named}, {})
        file = read_weights(path)
        assert list(file.arrays) == ["Teacher"]
        assert load_file(net, file, "net").whole
        assert changed(net, arrays) == []


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    array = np.zeros(8, np.float32)
    write_pdparams(tmp_path / "a.pdparams", {"backbone.conv.bn._mean": array, "backbone.conv.bn.running_mean": array})
    with pytest.raises(WeightsError, match=r"holds backbone\.conv\.bn\.running_mean twice"):
        read_weights(tmp_path / "a.pdparams")


def test_a_file_without_arrays_is_refused(tmp_path: Path) -> None:
    write_pdparams(tmp_path / "a.pdparams", {})
    with pytest.raises(WeightsError, match=r"a\.pdparams: holds no arrays"):
        read_weights(tmp_path / "a.pdparams")


def test_absent_and_strange_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"a\.pdparams: no such file"):
        read_weights(tmp_path / "a.pdparams")
    with pytest.raises(WeightsError, match=r"a\.pth: expected a file \.safetensors, \.pdparams, \.onnx, \.npz or a"):
        read_weights(tmp_path / "a.pth")
    (tmp_path / "best_accuracy.pdparams").touch()
    with pytest.raises(WeightsError, match=r"did you mean best_accuracy\.pdparams\?"):
        read_weights(tmp_path / "best_accuracy")


def test_sub_models_are_picked_by_name_or_in_order(tmp_path: Path, arrays: Arrays) -> None:
    write_weights(tmp_path / "a.pdparams", {"Teacher": arrays, "Student2": arrays}, {})
    file = read_weights(tmp_path / "a.pdparams")
    assert file.pick() == "Student2"
    assert file.pick(preferred=("Teacher", "Student2")) == "Teacher"
    assert file.pick("Teacher") == "Teacher"
    with pytest.raises(WeightsError, match="no sub-model 'Student': expected one of Teacher, Student2"):
        file.pick("Student")
    write_weights(tmp_path / "b.pdparams", {"": arrays}, {})
    assert read_weights(tmp_path / "b.pdparams").pick() == ""
    with pytest.raises(WeightsError, match="no sub-model 'Student': holds one net without a sub-model's name"):
        read_weights(tmp_path / "b.pdparams").pick("Student")


def test_another_sub_model_that_would_have_fitted_is_named(tmp_path: Path, arrays: Arrays) -> None:
    write_weights(tmp_path / "a.pdparams", {"Student": arrays, "Teacher": arrays_of(Detector(SMALL_TEACHER))}, {})
    with pytest.raises(WeightsError, match="; the file's Teacher would have matched") as caught:
        load_file(Detector(SMALL_TEACHER), read_weights(tmp_path / "a.pdparams"), "the teacher")
    assert "(Student) into the teacher" in str(caught.value)


def paddleclas_mobilenet(arrays: Arrays) -> Arrays:
    """The backbone under a classification net's names, with its last layers."""
    stages = {f"stage{s}.{u}": n for n, (s, u) in enumerate((s, u) for s in range(4) for u in range((3, 3, 6, 3)[s]))}
    named = {}
    for name, array in arrays.items():
        theirs = to_paddle(name).removeprefix("backbone.")
        unit = ".".join(theirs.split(".")[:2])
        if theirs.startswith("stage3.3."):
            theirs = theirs.replace("stage3.3.", "last_second_conv.")
        elif unit in stages:
            theirs = theirs.replace(unit, f"conv{stages[unit] + 2}", 1)
        else:
            theirs = theirs.replace("conv.", "conv1.", 1)
        named[theirs] = array
    rng = np.random.default_rng(5)
    last = {"last_conv.weight": (1280, 480, 1, 1), "out.weight": (1280, 10), "out.bias": (10,)}
    return named | {name: rng.standard_normal(shape).astype(np.float32) for name, shape in last.items()}


def test_a_classification_nets_mobilenet_starts_a_student(tmp_path: Path, net: Detector) -> None:
    torch.manual_seed(3)
    backbone = arrays_of(Detector(DetectorConfig(MobileNetV3Config(use_se=True))))
    backbone = {name: array + np.float32(0.25) for name, array in backbone.items() if name.startswith("backbone.")}
    write_pdparams(tmp_path / "a.pdparams", paddleclas_mobilenet(backbone))
    file = read_weights(tmp_path / "a.pdparams")
    assert file.is_bare_backbone
    assert file.dropped == ("last_conv.weight", "out.weight", "out.bias")
    assert file.arrays[""].keys() == backbone.keys()
    before = arrays_of(net)
    coverage = load_file(net, file, "Student", may_be_new=["neck", "head"])
    assert len(coverage.dropped) == 32  # eight squeeze-excites of four arrays; the student has none
    assert "left out" in coverage.one_line()
    assert set(changed(net, before)) == {name for name in before if name.startswith("backbone.")}
    for name, tensor in net.backbone.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), backbone[f"backbone.{name}"])


def test_squeeze_excite_of_a_detector_is_not_left_out(tmp_path: Path, net: Detector) -> None:
    with_se = arrays_of(Detector(DetectorConfig(MobileNetV3Config(use_se=True))))
    write_weights(tmp_path / "a.pdparams", {"": with_se}, {})
    with pytest.raises(WeightsError, match=r"unexpected backbone\.stage1\.0\.mid_se\.\* \(4\)"):
        load_file(net, read_weights(tmp_path / "a.pdparams"), "Student")


@pytest.mark.parametrize("generation", ["bb", "blocks"])
@pytest.mark.parametrize("layers", [18, 50])
def test_a_classification_nets_resnet_starts_a_teacher(tmp_path: Path, layers: int, generation: str) -> None:
    cfg = DetectorConfig(ResNetVdConfig(layers=layers, width=0.25), LKPANConfig(out_channels=32))  # type: ignore[arg-type]
    torch.manual_seed(3)
    backbone = {n: a + np.float32(0.25) for n, a in arrays_of(Detector(cfg)).items() if n.startswith("backbone.")}
    named: Arrays = {"fc.weight": np.zeros((4, 2), np.float32)}
    units = sorted({tuple(map(int, n.split(".")[2:4])) for n in backbone if n.startswith("backbone.stages.")})
    for name, array in backbone.items():
        if generation == "bb":
            named[to_paddle(name).removeprefix("backbone.")] = array
            continue
        parts = to_paddle(name).replace("_batch_norm", "bn").replace("_conv.", "conv.").split(".")[1:]
        if parts[0].startswith("conv1_"):
            named[".".join(["stem", str(int(parts[0][-1]) - 1), *parts[1:]])] = array
        else:
            stage, unit = map(int, parts[0].split("_")[1:])
            named[".".join(["blocks", str(units.index((stage, unit))), *parts[1:]])] = array
    write_pdparams(tmp_path / "a.pdparams", named)
    file = read_weights(tmp_path / "a.pdparams")
    assert file.dropped == ("fc.weight",)
    net = Detector(cfg)
    assert set(load_file(net, file, "net", may_be_new=["neck", "head"]).matched) == set(backbone)
    assert changed(net.backbone, {n.removeprefix("backbone."): a for n, a in backbone.items()}) == []
