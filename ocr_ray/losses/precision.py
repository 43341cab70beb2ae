"""The precision in which losses are computed."""

import torch
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """`x` in float32, or as it is in float64: sums over millions of pixels need more than bf16's 8 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
