"""The three fine-tuning scenarios of the reference: which weights end up in which net."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ocr_ray.config import CMLConfig, DMLConfig, StudentConfig
from ocr_ray.data.normalize import NormalizeConfig
from ocr_ray.errors import ConfigError, WeightsError
from ocr_ray.model_card import ModelCard, save_detector
from ocr_ray.models.db_head import DBHeadConfig
from ocr_ray.models.detector import Detector, DetectorConfig
from ocr_ray.models.distillation import CMLTriple
from ocr_ray.models.resnet_vd import ResNetVdConfig
from ocr_ray.models.rse_fpn import RSEFPNConfig
from ocr_ray.recipes import build_model, read_keep, read_test, read_train
from ocr_ray.spaces import space_from_plain
from ocr_ray.typed import with_values
from ocr_ray.weights.extract import write_weights

SMALL_TEACHER = DetectorConfig(backbone=ResNetVdConfig(layers=18, width=0.25))
TO_SMALL_TEACHER = {
    "student.detector.backbone": {"kind": "resnet_vd", "layers": 18, "width": 0.25},
    "student.detector.neck": {"kind": "rse_fpn"},
    "student.detector.head.kernel_list": [3, 2, 2],
}


def arrays_of(net: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in net.state_dict().items()}


def same(net: nn.Module, arrays: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(value.numpy(), arrays[name]) for name, value in net.state_dict().items())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, np.ndarray]]]:
    """A full distillation checkpoint, as PaddleOCR writes it: three nets with prefixes in one `.pdparams`."""
    torch.manual_seed(5)
    nets = {"Student": Detector(DetectorConfig()), "Student2": Detector(DetectorConfig())}
    arrays = {name: arrays_of(net) for name, net in {**nets, "Teacher": Detector(SMALL_TEACHER)}.items()}
    path = tmp_path_factory.mktemp("distill") / "best_accuracy.pdparams"
    write_weights(path, arrays, {})
    return path, arrays


def test_cml_from_a_full_distillation_checkpoint(checkpoint: tuple[Path, dict[str, dict[str, np.ndarray]]]) -> None:
    path, arrays = checkpoint
    built = build_model(with_values(CMLConfig(), {"student.weights": str(path), "teacher.weights": str(path)}, "t"))
    assert isinstance(built.model, CMLTriple)
    for name in ("Student", "Student2", "Teacher"):
        assert same(getattr(built.model, name), arrays[name]), name
    assert not built.new_parts
    assert not built.notes
    assert not any(p.requires_grad for p in built.model.Teacher.parameters())


def test_a_student_alone_from_a_student(checkpoint: tuple[Path, dict[str, dict[str, np.ndarray]]]) -> None:
    path, arrays = checkpoint
    built = build_model(with_values(StudentConfig(), {"student.weights": str(path)}, "t"))
    assert same(built.model.Student, arrays["Student"])


def test_dml_from_teacher_weights(checkpoint: tuple[Path, dict[str, dict[str, np.ndarray]]], tmp_path: Path) -> None:
    _, arrays = checkpoint
    teacher = tmp_path / "teacher.pdparams"
    write_weights(teacher, {"": arrays["Teacher"]}, {})
    values = {"student.weights": str(teacher), **TO_SMALL_TEACHER}
    built = build_model(with_values(DMLConfig(), values, "t"))
    students = built.model.students()
    assert same(students["Student"], arrays["Teacher"])
    assert not same(students["Student2"], arrays["Teacher"])
    assert "perturbed" in built.notes[0]


def test_dml_from_the_teacher_of_a_full_distillation_checkpoint(
    checkpoint: tuple[Path, dict[str, dict[str, np.ndarray]]],
) -> None:
    path, arrays = checkpoint
    values = {"student.weights": str(path), **TO_SMALL_TEACHER}
    with pytest.raises(WeightsError, match=r"the file's Teacher would have matched \(student\.model=Teacher\)$"):
        build_model(with_values(DMLConfig(), values, "t"))
    built = build_model(with_values(DMLConfig(), {**values, "student.model": "Teacher"}, "t"))
    students = built.model.students()
    assert same(students["Student"], arrays["Teacher"])
    assert not same(students["Student2"], arrays["Teacher"])
    assert "perturbed" in built.notes[0]


def test_a_sub_model_that_is_named_is_taken_for_both_students(
    checkpoint: tuple[Path, dict[str, dict[str, np.ndarray]]],
) -> None:
    path, arrays = checkpoint
    values = {"student.weights": str(path), "student.model": "Student2"}
    assert same(build_model(with_values(StudentConfig(), values, "t")).model.Student, arrays["Student2"])
    with pytest.raises(WeightsError, match="no sub-model 'Student3': expected one of Student, Student2, Teacher"):
        build_model(with_values(StudentConfig(), {**values, "student.model": "Student3"}, "t"))


def test_a_detector_of_the_same_shapes_that_answers_otherwise_is_refused(tmp_path: Path) -> None:
    cfg = DetectorConfig(neck=RSEFPNConfig(shortcut=False))
    path = tmp_path / "a.safetensors"
    save_detector(path, Detector(cfg), ModelCard(cfg))
    values = {"student.weights": str(path)}
    expected = r"^student\.detector\.neck\.shortcut: expected false as in .*a\.safetensors \(detector\.neck\.shortcut\)"
    with pytest.raises(ConfigError, match=f"{expected}, found true$"):
        build_model(with_values(StudentConfig(), values, "t"))
    assert not build_model(with_values(StudentConfig(), {**values, "student.detector.neck.shortcut": False}, "t")).notes
    # a neck of another width keeps nothing of the file's
    fresh = {"student.detector.neck.out_channels": 32, "student.may_be_new": ["neck", "head"]}
    assert build_model(with_values(StudentConfig(), {**values, **fresh}, "t")).new_parts


def test_a_steepness_or_a_normalisation_unlike_the_files_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    own = DetectorConfig(head=DBHeadConfig(k=30.0))
    save_detector(path, Detector(own), ModelCard(own, NormalizeConfig((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))))
    for cfg in (StudentConfig(), DMLConfig(student=StudentConfig().student)):
        steepness, normalization, *_ = build_model(with_values(cfg, {"student.weights": str(path)}, "t")).notes
        assert steepness == "a.safetensors was trained with detector.head.k=30, here it is 50"
        assert "normalised by mean [0.5, 0.5, 0.5], std [0.25, 0.25, 0.25] (its card)" in normalization
        assert normalization.endswith("std [0.229, 0.224, 0.225] (data.normalize)")
    values = {"student.weights": str(path), "data.normalize.mean": [0.5] * 3, "data.normalize.std": [0.25] * 3}
    assert len(build_model(with_values(StudentConfig(), values, "t")).notes) == 1


def test_an_export_without_its_threshold_branch_leaves_that_new(tmp_path: Path) -> None:
    torch.manual_seed(6)
    arrays = {n: a for n, a in arrays_of(Detector(DetectorConfig())).items() if not n.startswith("head.thresh")}
    path = tmp_path / "export.pdparams"
    write_weights(path, {"": arrays}, {})
    values = {"student.weights": str(path)}
    with pytest.raises(WeightsError, match=r"missing head\.thresh"):
        build_model(with_values(StudentConfig(), values, "t"))
    built = build_model(with_values(StudentConfig(), {**values, "student.may_be_new": "head.thresh"}, "t"))
    assert built.new_parts
    assert all(name.startswith("Student.head.thresh.") for name in built.new_parts)


def test_a_teacher_is_recognised_from_its_file_and_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.weights: expected a file"):
        build_model(CMLConfig())
    teacher = tmp_path / "teacher.safetensors"
    save_detector(teacher, Detector(SMALL_TEACHER), ModelCard(detector=SMALL_TEACHER))
    built = build_model(with_values(CMLConfig(), {"teacher.weights": str(teacher)}, "t"))
    assert isinstance(built.model, CMLTriple)
    assert not built.model.train().Teacher.training
    with pytest.raises(ConfigError, match="holds another architecture"):
        build_model(with_values(CMLConfig(), {"teacher.weights": str(teacher), "teacher.detector": {}}, "t"))


def test_the_same_config_builds_the_same_nets() -> None:
    one, other = build_model(StudentConfig()).model, build_model(StudentConfig()).model
    assert same(one, arrays_of(other))
    third = build_model(with_values(StudentConfig(), {"run.seed": 7}, "t")).model
    assert not same(third, arrays_of(one))


def test_a_branch_that_the_file_lacks_is_answered_by_the_key_that_lets_it_be_new(tmp_path: Path) -> None:
    file = tmp_path / "student.pdparams"
    arrays = {k: v.numpy() for k, v in Detector(DetectorConfig()).state_dict().items() if "thresh" not in k}
    write_weights(file, {"": {k: v for k, v in arrays.items() if not k.endswith("num_batches_tracked")}}, {})
    with pytest.raises(WeightsError, match=r"say that it may be new \(student\.may_be_new=\[head\.thresh\]\)$"):
        build_model(with_values(StudentConfig(), {"student.weights": str(file)}, "t"))


def test_mix_is_one_share_for_all_files_but_the_first(tmp_path: Path) -> None:
    for name, count in (("new", 4), ("old", 10), ("older", 10)):
        (tmp_path / f"{name}.txt").write_text("".join(f"{name}{i}.jpg\t[]\n" for i in range(count)))
    files = [str(tmp_path / f"{name}.txt") for name in ("new", "old", "older")]
    cfg = with_values(StudentConfig(), {"data.train": files}, "test")

    def names(share: float | None) -> set[str]:
        return {sample.name for sample in read_train(with_values(cfg, {"data.mix": share}, "test"))}

    assert len(names(None)) == len(names(1.0)) == 24
    assert names(0.0) == {f"new{i}.jpg" for i in range(4)}
    assert len(names(0.3)) == 4 + 3 + 3
    assert names(0.3) < names(0.5)
    with_ratios = with_values(cfg, {"data.ratios": [1.0, 0.3, 0.3]}, "test")
    assert {sample.name for sample in read_train(with_ratios)} == names(0.3)


def test_mix_can_be_searched_where_there_is_something_to_mix_in() -> None:
    space = {"data.mix": {"uniform": [0.0, 1.0]}}
    two = with_values(StudentConfig(), {"data.train": ["new.txt", "old.txt"]}, "test")
    assert space_from_plain(space, two, "space").own_values(two) is None  # all of each: no number
    assert space_from_plain(space, two, "space").own_values(with_values(two, {"data.mix": 0.5}, "test"))
    one = with_values(StudentConfig(), {"data.train": ["new.txt"]}, "test")
    with pytest.raises(ConfigError, match=r"space: data\.mix: expected a second file in data\.train"):
        space_from_plain(space, one, "space")
    with pytest.raises(ConfigError, match=r"data\.mix: expected a number from 0 to 1"):
        space_from_plain({"data.mix": {"uniform": [0.0, 2.0]}}, two, "space")


def test_keep_and_test_are_sets_of_their_own_or_none(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("".join(f"{i}.jpg\t[]\n" for i in range(10)))
    assert read_keep(StudentConfig()) == read_test(StudentConfig()) == []
    old = [str(tmp_path / "old.txt")]
    cfg = with_values(StudentConfig(), {"data.keep": old, "data.keep_size": 3, "data.test": old}, "test")
    assert [sample.name for sample in read_keep(cfg)] == ["0.jpg", "3.jpg", "6.jpg"]
    assert len(read_test(cfg)) == 10
