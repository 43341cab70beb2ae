"""What passes between backbone and neck, and how maps of different strides meet."""

import torch
from torch import Tensor
from torch.nn import functional as F

Features = tuple[Tensor, Tensor, Tensor, Tensor]
"""Four maps `(N, C_i, H/s, W/s)` of pictures `(N, 3, H, W)`, s = 4, 8, 16, 32."""

Channels = tuple[int, int, int, int]
"""The C_i of `Features`."""

MOST_CHANNELS = 65_536
"""Of a neck, far beyond any that was ever trained, so that a slip or a forged file asks for no impossible net."""
MOST_WIDTH = 64.0
"""Of a backbone's factor on all channels, likewise."""


def top_down(c2: Tensor, c3: Tensor, c4: Tensor, c5: Tensor) -> Features:
    """To each map the sum of all coarser ones is added, enlarged by repeating pixels. All have the same channels.

    Source: Lin et al. 2017, arXiv 1612.03144.
    """
    o4 = c4 + enlarge(c5, 2)
    o3 = c3 + enlarge(o4, 2)
    return c2 + enlarge(o3, 2), o3, o4, c5


def concatenate(p2: Tensor, p3: Tensor, p4: Tensor, p5: Tensor) -> Tensor:
    """All four maps at stride 4, coarsest first: four `(N, C, ...)` to `(N, 4C, H/4, W/4)`."""
    return torch.cat([enlarge(p5, 8), enlarge(p4, 4), enlarge(p3, 2), p2], dim=1)


def enlarge(x: Tensor, factor: int) -> Tensor:
    """Each pixel `factor` times in both directions."""
    return F.interpolate(x, scale_factor=float(factor), mode="nearest")
