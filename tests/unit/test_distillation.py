import pytest
import torch

from ocr_ray.models.db_head import DBHeadConfig
from ocr_ray.models.detector import Detector, DetectorConfig
from ocr_ray.models.distillation import CMLTriple, DMLPair, Single
from ocr_ray.models.lkpan import LKPANConfig
from ocr_ray.models.resnet_vd import ResNetVdConfig

LARGER = DetectorConfig(ResNetVdConfig(layers=18, width=0.25), LKPANConfig(out_channels=32), DBHeadConfig())


@pytest.fixture
def images() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, 64, 64)


def triple(batch_stats: bool) -> CMLTriple:
    return CMLTriple(
        Detector(DetectorConfig()), Detector(DetectorConfig()), Detector(LARGER).train(), batch_stats=batch_stats
    )


def statistics(detector: Detector) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in detector.named_buffers()}


def test_names_are_the_prefixes_of_the_weights() -> None:
    pair = DMLPair(Detector(DetectorConfig()), Detector(DetectorConfig()))
    assert {name.split(".")[0] for name in pair.state_dict()} == {"Student", "Student2"}
    assert {name.split(".")[0] for name in triple(False).state_dict()} == {"Student", "Student2", "Teacher"}
    assert list(Single(pair.Student).students()) == ["Student"]
    assert pair.students() == {"Student": pair.Student, "Student2": pair.Student2}


def test_outputs_are_each_nets_own(images: torch.Tensor) -> None:
    model = triple(batch_stats=False).eval()
    outputs = model(images)
    assert list(outputs.students) == ["Student", "Student2"]
    for name, student in model.students().items():
        assert torch.equal(outputs.students[name].threshold, student(images).threshold)
    assert outputs.teacher_shrink is not None
    alone = torch.cat([model.Teacher(image).shrink for image in images.split(1)])
    assert torch.equal(outputs.teacher_shrink, alone)  # whatever the batch, so that an answer may be stored
    assert DMLPair(model.Student, model.Student2)(images).teacher_shrink is None


def test_teacher_stays_frozen_and_in_eval_mode(images: torch.Tensor) -> None:
    model = triple(batch_stats=False)
    assert not any(m.training for m in model.Teacher.modules())
    model.train()
    assert model.Student.training
    assert not any(m.training for m in model.Teacher.modules())
    before = statistics(model.Teacher)
    outputs = model(images)
    assert outputs.teacher_shrink is not None
    assert not outputs.teacher_shrink.requires_grad
    (outputs.students["Student"].binary.sum() + outputs.students["Student2"].binary.sum()).backward()
    assert all(p.grad is None and not p.requires_grad for p in model.Teacher.parameters())
    assert all(p.grad is not None for s in model.students().values() for p in s.parameters())
    assert all(torch.equal(before[name], value) for name, value in statistics(model.Teacher).items())
    # its answer to a picture does not depend on the others of the batch
    torch.testing.assert_close(model(images[:1]).teacher_shrink, outputs.teacher_shrink[:1], rtol=0, atol=1e-4)


def test_batch_stats_moves_all_of_the_teachers_statistics(images: torch.Tensor) -> None:
    model = triple(batch_stats=True).train()
    before = statistics(model.Teacher)
    parameters = [p.clone() for p in model.Teacher.parameters()]
    outputs = model(images)
    assert outputs.teacher_shrink is not None
    assert not outputs.teacher_shrink.requires_grad
    after = statistics(model.Teacher)
    assert after.keys() == before.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before)  # the threshold branch's too
    assert all(torch.equal(a, b) for a, b in zip(parameters, model.Teacher.parameters(), strict=True))
    model.eval()
    assert not any(m.training for m in model.Teacher.modules())


def test_teacher_without_its_threshold_branch_will_do(images: torch.Tensor) -> None:
    model = triple(batch_stats=False).train()
    for parameter in model.Teacher.head.thresh.parameters():
        parameter.fill_(torch.nan)
    teacher = model(images).teacher_shrink
    assert teacher is not None
    assert teacher.isfinite().all()
