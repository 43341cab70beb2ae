"""Dice loss of a probability map, plain and balanced."""

import torch
from torch import Tensor

from ocr_ray.losses.precision import widened


def dice_loss(probability: Tensor, target: Tensor, mask: Tensor, eps: float) -> Tensor:
    """1 - 2 Σ(p t m) / (Σ(p m) + Σ(t m) + eps), over all pixels of the batch together.

    Args: all maps `(N, H, W)`: probability in [0, 1], target and mask 0 or 1; `mask` is 0 where nothing counts.
    Returns: a scalar in [0, 1]; 1 where target or mask is empty. Source: Milletari et al. 2016, arXiv 1606.04797,
        without their squares; reference name `DiceLoss`.
    """
    p, t, m = widened(probability), widened(target), widened(mask)
    t = t * m
    return 1 - 2 * (p * t).sum() / ((p * m).sum() + t.sum() + eps)


def balanced_dice_loss(probability: Tensor, target: Tensor, mask: Tensor, ohem_ratio: float, eps: float) -> Tensor:
    """`dice_loss`, but 0, without gradient, where the batch has no text pixel that counts.

    Args: as for `dice_loss`. `ohem_ratio` bounds the negatives that are counted by a multiple of the positives.
    Returns: the loss times c / (c + eps), c the counted pixels. The reference multiplies the Dice loss, one number, by
        each pixel's weight, mines the hardest among equals and divides by their count: this is what remains of it. So
        `ohem_ratio` moves nothing that float32 could show. Reference name `BalanceLoss` with `DiceLoss`.
    """
    positives, negatives = pixel_counts(target, mask, ohem_ratio)
    counted = positives + negatives
    return dice_loss(probability, target, mask, eps) * (counted / (counted + eps))


def pixel_counts(target: Tensor, mask: Tensor, ohem_ratio: float) -> tuple[Tensor, Tensor]:
    """Text pixels that count, and how many others are to count beside them; both whole numbers.

    The latter are at most `ohem_ratio` times the former. They stay on the device: reading them would make it wait.
    """
    t, m = widened(target), widened(mask)
    positives = (t * m).sum()
    negatives = m.sum() - positives
    positives = positives.trunc()
    return positives, torch.minimum(negatives, positives * ohem_ratio).trunc()
