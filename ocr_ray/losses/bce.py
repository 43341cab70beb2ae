"""Cross-entropy of a probability map with hard negatives."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ocr_ray.losses.dice import pixel_counts
from ocr_ray.losses.precision import widened


def bce_loss(probability: Tensor, target: Tensor, mask: Tensor, eps: float) -> Tensor:
    """Mean cross-entropy, in nats, over the pixels that count; 0 where none does.

    Args: all maps `(N, H, W)`: probability in [0, 1], target and mask 0 or 1. Returns: a scalar.
    """
    entropy, m = _entropy(probability, target), widened(mask)
    return (entropy * m).sum() / (m.sum() + eps)


def ohem_bce_loss(probability: Tensor, target: Tensor, mask: Tensor, ohem_ratio: float, eps: float) -> Tensor:
    """Mean cross-entropy over all text pixels and the hardest others, at most `ohem_ratio` times as many.

    Args: as for `bce_loss`; the hardest are chosen over the whole batch.
    Returns: a scalar, in nats; 0 where the batch has no text pixel that counts.
    Source: Shrivastava et al. 2016, arXiv 1604.03540; reference name `BalanceLoss` with `BCELoss`.
    """
    entropy, t, m = _entropy(probability, target), widened(target), widened(mask)
    positives, negatives = pixel_counts(target, mask, ohem_ratio)
    hardest = (entropy * ((1 - t) * m)).flatten().sort(descending=True).values
    # Not topk: its k would have to be a number of the host's, and reading it would make the device wait.
    rank = torch.arange(hardest.numel(), device=hardest.device)
    chosen = torch.where(rank < negatives, hardest, 0.0)
    return ((entropy * (t * m)).sum() + chosen.sum()) / (positives + negatives + eps)


def _entropy(probability: Tensor, target: Tensor) -> Tensor:
    p = widened(probability)
    return F.binary_cross_entropy(p, target.to(p.dtype), reduction="none")
