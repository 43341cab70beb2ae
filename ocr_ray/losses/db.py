"""The loss of differentiable binarisation: three maps against labels."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ocr_ray.data.batch import Targets
from ocr_ray.losses.bce import bce_loss, ohem_bce_loss
from ocr_ray.losses.checks import require_not_negative, require_positive
from ocr_ray.losses.dice import balanced_dice_loss, dice_loss
from ocr_ray.losses.precision import widened
from ocr_ray.models.db_head import Maps

MainLoss = Literal["dice", "bce"]


@dataclass(frozen=True)
class DBLossConfig:
    """DB loss of each student; the defaults are the reference's."""

    weight: float = 1.0
    """Of the whole term."""
    alpha: float = 5.0
    """Of the shrink map's part."""
    beta: float = 10.0
    """Of the threshold map's part. The binary map's has weight 1."""
    ohem_ratio: float = 3.0
    """Hardest background pixels to a text pixel in the shrink map's part; acts with `main: bce` and `balance` only."""
    balance: bool = True
    """A batch without text adds nothing to the shrink map's part; with `main: bce` hard negatives are mined."""
    main: MainLoss = "dice"
    """What compares the shrink map."""
    eps: float = 1e-6
    """Added to each denominator, in pixels."""

    def __post_init__(self) -> None:
        require_not_negative(
            "loss.db", weight=self.weight, alpha=self.alpha, beta=self.beta, ohem_ratio=self.ohem_ratio
        )
        require_positive("loss.db", eps=self.eps)


@dataclass(frozen=True)
class DBLoss:
    """The parts as they are minimised, weights included; each a scalar."""

    shrink: Tensor
    threshold: Tensor
    binary: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return self.shrink + self.threshold + self.binary


def db_loss(maps: Maps, targets: Targets, cfg: DBLossConfig) -> DBLoss:
    """weight · (alpha · main(shrink) + beta · L1(threshold) + Dice(binary)), over the batch together.

    Raises: ValueError when maps and targets differ in shape.
    Source: Liao et al. 2020, arXiv 1911.08947, section 3.5 (with Dice where it has cross-entropy); reference name
    `DBLoss`.
    """
    if maps.shrink.shape != targets.shrink_map.shape:
        raise ValueError(f"db_loss: maps are {tuple(maps.shrink.shape)}, targets {tuple(targets.shrink_map.shape)}")
    shrink = shrink_loss(
        maps.shrink, targets.shrink_map, targets.shrink_mask, cfg.main, cfg.balance, cfg.ohem_ratio, cfg.eps
    )
    threshold = masked_l1_loss(maps.threshold, targets.threshold_map, targets.threshold_mask, cfg.eps)
    binary = dice_loss(maps.binary, targets.shrink_map, targets.shrink_mask, cfg.eps)
    return DBLoss(cfg.weight * cfg.alpha * shrink, cfg.weight * cfg.beta * threshold, cfg.weight * binary)


def shrink_loss(
    probability: Tensor, target: Tensor, mask: Tensor, main: MainLoss, balance: bool, ohem_ratio: float, eps: float
) -> Tensor:
    """The loss of a shrink map that `main` and `balance` name; maps `(N, H, W)`, a scalar."""
    match main, balance:
        case "dice", True:
            return balanced_dice_loss(probability, target, mask, ohem_ratio, eps)
        case "dice", False:
            return dice_loss(probability, target, mask, eps)
        case "bce", True:
            return ohem_bce_loss(probability, target, mask, ohem_ratio, eps)
        case _:
            return bce_loss(probability, target, mask, eps)


def masked_l1_loss(prediction: Tensor, target: Tensor, mask: Tensor, eps: float) -> Tensor:
    """Σ(|prediction - target| mask) / (Σ mask + eps), maps `(N, H, W)`: a scalar; 0 where the mask is empty.

    Source: reference name `MaskL1Loss`.
    """
    m = widened(mask)
    return ((widened(prediction) - widened(target)).abs() * m).sum() / (m.sum() + eps)
