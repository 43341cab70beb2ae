"""What each recipe minimises, part by part."""

from dataclasses import dataclass, field
from typing import assert_never

import torch
from torch import Tensor

from ocr_ray.data.batch import Targets
from ocr_ray.losses.db import DBLossConfig, db_loss
from ocr_ray.losses.dila import DistillLossConfig, distill_loss, teacher_target
from ocr_ray.losses.dml import DMLLossConfig, dml_loss
from ocr_ray.models.distillation import Outputs


@dataclass(frozen=True)
class StudentRecipeLoss:
    """One student against labels."""

    db: DBLossConfig = field(default_factory=DBLossConfig)


@dataclass(frozen=True)
class DMLRecipeLoss:
    """Two students against each other and against labels."""

    dml: DMLLossConfig = field(default_factory=DMLLossConfig)
    db: DBLossConfig = field(default_factory=DBLossConfig)


@dataclass(frozen=True)
class CMLRecipeLoss:
    """Two students against each other, against labels and against a frozen teacher."""

    dml: DMLLossConfig = field(default_factory=DMLLossConfig)
    db: DBLossConfig = field(default_factory=DBLossConfig)
    distill: DistillLossConfig = field(default_factory=DistillLossConfig)


RecipeLoss = StudentRecipeLoss | DMLRecipeLoss | CMLRecipeLoss


@dataclass(frozen=True)
class LossParts:
    """All parts by name, weights included, in an order that depends on the recipe alone; each a scalar.

    `dml`; `db.Student.shrink`, `.threshold`, `.binary`, the same for `Student2`; `distill.Student`,
    `distill.Student2`: those that the recipe has.
    """

    values: dict[str, Tensor]

    @property
    def total(self) -> Tensor:
        """Their sum, a scalar: what is minimised."""
        return torch.stack(list(self.values.values())).sum()


def recipe_loss(outputs: Outputs, targets: Targets, cfg: RecipeLoss) -> LossParts:
    """The parts of a recipe's loss on one batch.

    The total is a mean over the batch of N pictures. The reference's loss for pairs and triples is a vector of N, its
    mutual part being one value per picture, and its `backward` adds the entries up: its gradient is N times ours, and
    the mean of its vector is our total. To Adam a factor on all gradients means nothing, but its weight decay is added
    to the gradient: what the reference calls 5e-5 acts like `optim.weight_decay` of 5e-5 / N here. For a single student
    the reference's loss is one number, and gradients are equal.

    A part of weight 0 is computed all the same: its parameters then have a gradient of 0 rather than none, which
    data-parallel training needs.

    Args: targets as `Targets.to` gives them. Computed in float32, also inside an autocast region.
    A teacher is among the nets, or its answers among the targets; then `loss.distill.threshold` was applied to them.

    Raises: ValueError when a shape differs, or when a recipe's student or teacher is missing.
    """
    with torch.autocast(targets.shrink_map.device.type, enabled=False):
        match cfg:
            case StudentRecipeLoss():
                _require(outputs, 1, teacher=False)
                return LossParts(_db(outputs, targets, cfg.db))
            case DMLRecipeLoss():
                _require(outputs, 2, teacher=False)
                return LossParts({"dml": _dml(outputs, cfg.dml), **_db(outputs, targets, cfg.db)})
            case CMLRecipeLoss():
                _require(outputs, 2, teacher=targets.teacher is None)
                return LossParts(
                    {
                        "dml": _dml(outputs, cfg.dml),
                        **_db(outputs, targets, cfg.db),
                        **_distill(outputs, targets, cfg.distill),
                    }
                )
            case _:
                assert_never(cfg)


def _dml(outputs: Outputs, cfg: DMLLossConfig) -> Tensor:
    student, student2 = outputs.students.values()
    return dml_loss(student.shrink, student2.shrink, cfg)


def _db(outputs: Outputs, targets: Targets, cfg: DBLossConfig) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    for name, maps in outputs.students.items():
        loss = db_loss(maps, targets, cfg)
        values[f"db.{name}.shrink"] = loss.shrink
        values[f"db.{name}.threshold"] = loss.threshold
        values[f"db.{name}.binary"] = loss.binary
    return values


def _distill(outputs: Outputs, targets: Targets, cfg: DistillLossConfig) -> dict[str, Tensor]:
    target = targets.teacher
    if outputs.teacher_shrink is not None:
        target = teacher_target(outputs.teacher_shrink, cfg.threshold)
    assert target is not None, "as _require has seen to"
    return {
        f"distill.{name}": distill_loss(maps, target, targets.shrink_mask, cfg)
        for name, maps in outputs.students.items()
    }


def _require(outputs: Outputs, students: int, teacher: bool) -> None:
    if len(outputs.students) != students or (teacher and outputs.teacher_shrink is None):
        raise ValueError(
            f"recipe_loss: expected {students} students{' and a teacher' if teacher else ''}, "
            f"found {list(outputs.students)}{'' if outputs.teacher_shrink is None else ' and a teacher'}"
        )
