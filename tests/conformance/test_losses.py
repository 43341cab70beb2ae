"""What every recipe's loss does, whatever its settings. A new loss is a field of a recipe, and is in here by that."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from ocr_ray.data.batch import Targets
from ocr_ray.losses.combined import (
    CMLRecipeLoss,
    DMLRecipeLoss,
    LossParts,
    RecipeLoss,
    StudentRecipeLoss,
    recipe_loss,
)
from ocr_ray.losses.db import db_loss
from ocr_ray.losses.dila import distill_loss, teacher_target
from ocr_ray.losses.dml import dml_loss
from ocr_ray.models.db_head import Maps
from ocr_ray.models.distillation import Outputs

SHAPE = (2, 32, 48)
RECIPES = (StudentRecipeLoss(), DMLRecipeLoss(), CMLRecipeLoss())


def variants() -> Iterator[RecipeLoss]:
    """Every recipe, with each choice that its terms offer."""
    for recipe in RECIPES:
        for main in ("dice", "bce"):
            for balance in (True, False):
                changes: dict[str, Any] = {
                    field.name: dataclasses.replace(getattr(recipe, field.name), main=main, balance=balance)
                    for field in dataclasses.fields(recipe)
                    if hasattr(getattr(recipe, field.name), "main")
                }
                yield dataclasses.replace(recipe, **changes)


def name(cfg: RecipeLoss) -> str:
    return f"{type(cfg).__name__}-{cfg.db.main}-{'balanced' if cfg.db.balance else 'plain'}"


VARIANTS = [pytest.param(cfg, id=name(cfg)) for cfg in variants()]


def logits(cfg: RecipeLoss, seed: int = 0) -> list[Tensor]:
    """What the students' maps are made of, so that extreme probabilities have a gradient to look at."""
    generator = torch.Generator().manual_seed(seed)
    students = 1 if isinstance(cfg, StudentRecipeLoss) else 2
    return [(3 * torch.randn(3, *SHAPE, generator=generator)).requires_grad_() for _ in range(students)]


def outputs(cfg: RecipeLoss, students: list[Tensor], dtype: torch.dtype = torch.float32) -> Outputs:
    maps = {n: Maps(*x.sigmoid().to(dtype)) for n, x in zip(("Student", "Student2"), students, strict=False)}
    teacher = torch.rand(SHAPE, generator=torch.Generator().manual_seed(9)).to(dtype)
    return Outputs(maps, teacher if isinstance(cfg, CMLRecipeLoss) else None)


def targets(kernels: float, counts: float, borders: float) -> Targets:
    """Random maps in which these shares are text, count for the shrink map, and count for the threshold map."""
    generator = torch.Generator().manual_seed(1)

    def drawn() -> Tensor:
        return torch.rand(SHAPE, generator=generator)

    return Targets(
        (drawn() < kernels).float(), (drawn() < counts).float(), 0.3 + 0.4 * drawn(), (drawn() < borders).float()
    )


TARGETS = {
    "ordinary": targets(0.2, 0.9, 0.3),
    "no text": targets(0, 1, 0),
    "nothing counts": targets(0, 0, 0),
    "text that does not count": targets(0.2, 0, 0),
    "text alone": targets(1, 1, 1),
}


def gradient(cfg: RecipeLoss, parts: LossParts, students: list[Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(parts.total, students)])


@pytest.mark.parametrize("labels", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("cfg", VARIANTS)
def test_finite_whatever_the_labels(cfg: RecipeLoss, labels: Targets) -> None:
    students = logits(cfg)
    parts = recipe_loss(outputs(cfg, students), labels, cfg)
    assert all(value.isfinite() and value >= 0 for key, value in parts.values.items() if key != "dml")
    assert gradient(cfg, parts, students).isfinite().all()


@pytest.mark.parametrize("cfg", VARIANTS)
def test_finite_for_certain_predictions(cfg: RecipeLoss) -> None:
    """Probabilities that are 0 or 1 to the last bit, right and wrong."""
    students = [(200 * x.detach()).requires_grad_() for x in logits(cfg)]
    parts = recipe_loss(outputs(cfg, students), TARGETS["ordinary"], cfg)
    assert all(value.isfinite() for value in parts.values.values())
    assert gradient(cfg, parts, students).isfinite().all()


@pytest.mark.parametrize("cfg", VARIANTS)
def test_bf16_maps_are_widened(cfg: RecipeLoss) -> None:
    """The maps are rounded, the sums over them are not: the loss of the same numbers in float32, to its last bits."""
    students = logits(cfg)
    rounded = outputs(cfg, students, torch.bfloat16)
    teacher = rounded.teacher_shrink
    again = Outputs(
        {n: Maps(m.shrink.float(), m.threshold.float(), m.binary.float()) for n, m in rounded.students.items()},
        None if teacher is None else teacher.float(),
    )
    parts, exact = (recipe_loss(o, TARGETS["ordinary"], cfg) for o in (rounded, again))
    for key, value in parts.values.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact.values[key], rtol=1e-6, atol=0)
    assert gradient(cfg, parts, students).isfinite().all()


@pytest.mark.parametrize("cfg", VARIANTS)
def test_autocast_changes_nothing(cfg: RecipeLoss) -> None:
    expected = recipe_loss(outputs(cfg, logits(cfg)), TARGETS["ordinary"], cfg).total
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(recipe_loss(outputs(cfg, logits(cfg)), TARGETS["ordinary"], cfg).total, expected)


@pytest.mark.parametrize("cfg", VARIANTS)
def test_parts_add_up_and_are_scalars(cfg: RecipeLoss) -> None:
    parts = recipe_loss(outputs(cfg, logits(cfg)), TARGETS["ordinary"], cfg)
    assert all(value.shape == () for value in parts.values.values())
    assert parts.total.item() == pytest.approx(sum(value.item() for value in parts.values.values()), rel=1e-6)


@pytest.mark.parametrize("cfg", VARIANTS)
def test_each_term_is_linear_in_its_weight(cfg: RecipeLoss) -> None:
    students = logits(cfg)

    def parts_and_gradient(cfg: RecipeLoss) -> tuple[dict[str, float], Tensor]:
        parts = recipe_loss(outputs(cfg, students), TARGETS["ordinary"], cfg)
        return {k: v.item() for k, v in parts.values.items()}, gradient(cfg, parts, students)

    base, base_gradient = parts_and_gradient(cfg)
    for field in dataclasses.fields(cfg):
        term = getattr(cfg, field.name)

        def weighing(weight: float, field: Any = field, term: Any = term) -> RecipeLoss:
            change: dict[str, Any] = {field.name: dataclasses.replace(term, weight=weight)}
            return dataclasses.replace(cfg, **change)

        tripled, tripled_gradient = parts_and_gradient(weighing(3.0))
        without, without_gradient = parts_and_gradient(weighing(0.0))
        own = {key for key in base if key.split(".")[0] == field.name}
        assert own
        for key, value in base.items():
            assert tripled[key] == pytest.approx((3 if key in own else 1) * value, rel=1e-5)
            assert without[key] == (0 if key in own else value)
        torch.testing.assert_close(
            tripled_gradient, without_gradient + 3 * (base_gradient - without_gradient), rtol=1e-3, atol=1e-6
        )


@pytest.mark.parametrize("cfg", VARIANTS)
def test_a_batch_without_text_pulls_the_balanced_shrink_part_nowhere(cfg: RecipeLoss) -> None:
    parts = recipe_loss(outputs(cfg, logits(cfg)), TARGETS["no text"], cfg)
    shrink = parts.values["db.Student.shrink"].item()
    assert (shrink == 0) == cfg.db.balance
    assert parts.values["db.Student.threshold"].item() == 0
    assert parts.values["db.Student.binary"].item() == 1


@pytest.mark.parametrize("cfg", [CMLRecipeLoss()])
def test_what_is_missing_is_said(cfg: CMLRecipeLoss) -> None:
    whole = outputs(cfg, logits(cfg))
    with pytest.raises(ValueError, match="expected 2 students and a teacher"):
        recipe_loss(Outputs(whole.students), TARGETS["ordinary"], cfg)
    with pytest.raises(ValueError, match="expected 2 students"):
        recipe_loss(Outputs({"Student": whole.students["Student"]}), TARGETS["ordinary"], DMLRecipeLoss())
    small = Targets(*(torch.zeros(2, 8, 8) for _ in range(4)))
    with pytest.raises(ValueError, match="maps are"):
        recipe_loss(whole, small, cfg)


@pytest.mark.parametrize("cfg", [c for c in variants() if isinstance(c, CMLRecipeLoss)], ids=name)
def test_nothing_is_read_back_to_the_host(cfg: CMLRecipeLoss) -> None:
    """Tensors without values go through, backward included: no step on a GPU has to wait for a number."""
    blank = torch.rand(SHAPE, device="meta")
    labels = Targets(blank, blank, blank, blank)
    student, student2 = (torch.rand(3, *SHAPE, device="meta", requires_grad=True) for _ in range(2))
    maps, maps2 = Maps(*student.unbind()), Maps(*student2.unbind())
    target = teacher_target(blank, cfg.distill.threshold)
    loss = dml_loss(maps.shrink, maps2.shrink, cfg.dml) + db_loss(maps, labels, cfg.db).total
    (loss + distill_loss(maps2, target, labels.shrink_mask, cfg.distill)).backward()
    assert student.grad is not None
    assert student2.grad is not None
