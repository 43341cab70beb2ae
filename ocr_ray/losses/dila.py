"""Distillation: a student against the teacher's dilated answer."""

from dataclasses import dataclass

from torch import Tensor

from ocr_ray.losses.checks import require_not_negative, require_positive
from ocr_ray.losses.db import MainLoss, shrink_loss
from ocr_ray.losses.dice import dice_loss
from ocr_ray.models.db_head import Maps


@dataclass(frozen=True)
class DistillLossConfig:
    """DB loss of each student with the teacher's map in place of the labels'; the defaults are the reference's.

    No `beta`: the teacher's threshold map does not take part, here as there.
    """

    weight: float = 1.0
    """Of the whole term, that is of both students'."""
    alpha: float = 5.0
    """Of the shrink map's part. The binary map's has weight 1."""
    threshold: float = 0.3
    """Where the teacher's map is text: above it."""
    ohem_ratio: float = 3.0
    """As in `loss.db`."""
    balance: bool = True
    """As in `loss.db`."""
    main: MainLoss = "dice"
    """As in `loss.db`."""
    eps: float = 1e-6
    """As in `loss.db`."""

    def __post_init__(self) -> None:
        require_not_negative(
            "loss.distill",
            weight=self.weight,
            alpha=self.alpha,
            threshold=self.threshold,
            ohem_ratio=self.ohem_ratio,
        )
        require_positive("loss.distill", eps=self.eps)


def teacher_target(teacher_shrink: Tensor, threshold: float) -> Tensor:
    """Where the teacher sees text, grown by a pixel to the right and down: `(N, H, W)` to bool `(N, H, W)`.

    Source: reference name `DistillationDilaDBLoss`, which dilates by 2x2 ones with OpenCV's anchor (1, 1).
    """
    text = teacher_shrink > threshold
    grown = text.clone()
    grown[:, 1:] |= text[:, :-1]
    text = grown.clone()
    grown[:, :, 1:] |= text[:, :, :-1]
    return grown


def distill_loss(student: Maps, target: Tensor, shrink_mask: Tensor, cfg: DistillLossConfig) -> Tensor:
    """weight · (alpha · main(shrink) + Dice(binary)) of one student against a `teacher_target`, on the labels' mask.

    Maps `(N, H, W)`; a scalar, over the batch together. Raises: ValueError when the shapes differ.
    Source: Du et al. 2021, arXiv 2109.03144 (PP-OCRv2), section 2.1; reference name `DistillationDilaDBLoss`.
    """
    if student.shrink.shape != target.shape:
        raise ValueError(f"distill_loss: student is {tuple(student.shrink.shape)}, teacher {tuple(target.shape)}")
    shrink = shrink_loss(student.shrink, target, shrink_mask, cfg.main, cfg.balance, cfg.ohem_ratio, cfg.eps)
    return cfg.weight * (cfg.alpha * shrink + dice_loss(student.binary, target, shrink_mask, cfg.eps))
