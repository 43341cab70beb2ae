"""The three fine-tuning scenarios of the reference: which weights end up in which net."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ocr_ray.config import CMLConfig, DMLConfig, StudentConfig
from ocr_ray.errors import ConfigError, WeightsError
from ocr_ray.model_card import ModelCard, save_detector
from ocr_ray.models.detector import Detector, DetectorConfig
from ocr_ray.models.distillation import CMLTriple
from ocr_ray.models.resnet_vd import ResNetVdConfig
from ocr_ray.recipes import build_model
from ocr_ray.typed import with_values
from ocr_ray.weights.extract import write_weights

SMALL_TEACHER = DetectorConfig(backbone=ResNetVdConfig(layers=18, width=0.25))


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
    values = {
        "student.weights": str(teacher),
        "student.detector.backbone": {"kind": "resnet_vd", "layers": 18, "width": 0.25},
        "student.detector.neck": {"kind": "rse_fpn"},
        "student.detector.head.kernel_list": [3, 2, 2],
    }
    built = build_model(with_values(DMLConfig(), values, "t"))
    students = built.model.students()
    assert same(students["Student"], arrays["Teacher"])
    assert not same(students["Student2"], arrays["Teacher"])
    assert "perturbed" in built.notes[0]


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
