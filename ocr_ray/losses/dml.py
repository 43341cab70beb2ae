"""Mutual learning: how far two students' answers lie apart."""

from dataclasses import dataclass

from torch import Tensor

from ocr_ray.losses.checks import require_not_negative, require_positive
from ocr_ray.losses.precision import widened


@dataclass(frozen=True)
class DMLLossConfig:
    """Mutual divergence of the two students' shrink maps."""

    weight: float = 1.0
    """Of the whole term."""
    eps: float = 1e-5
    """Added to probabilities and to their ratio, so that the logarithm stays finite."""

    def __post_init__(self) -> None:
        require_not_negative("loss.dml", weight=self.weight)
        require_positive("loss.dml", eps=self.eps)


def dml_loss(student: Tensor, student2: Tensor, cfg: DMLLossConfig) -> Tensor:
    """weight · mean of ½ (q ln((q + eps) / (p + eps) + eps) + p ln((p + eps) / (q + eps) + eps)).

    p and q are the two maps, `(N, H, W)`, probabilities in [0, 1]; both receive gradient. Text only: how much the two
    say "background" is left out, and neither labels nor masks take part.

    Returns: a scalar, in nats. The reference keeps one value per picture, see `combined`.
    Raises: ValueError when the shapes differ.
    Source: Zhang et al. 2018, arXiv 1706.00384; reference name `DistillationDMLLoss` without activation.
    """
    if student.shape != student2.shape:
        raise ValueError(f"dml_loss: student is {tuple(student.shape)}, student2 {tuple(student2.shape)}")
    p, q = widened(student), widened(student2)
    ratio = (q + cfg.eps) / (p + cfg.eps)
    divergence = q * (ratio + cfg.eps).log() + p * (ratio.reciprocal() + cfg.eps).log()
    return 0.5 * cfg.weight * divergence.mean()
