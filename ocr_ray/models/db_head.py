"""The differentiable binarisation head and the three maps it gives."""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocr_ray.errors import ConfigError
from ocr_ray.models.batch_norm import BatchNorm
from ocr_ray.models.init import conv2d, kaiming_uniform_

MOST_KERNEL = 99
BN_SHIFT = 1e-4  # where the reference's batch normalisations of the head start


@dataclass(frozen=True)
class DBHeadConfig:
    """Differentiable binarisation head."""

    k: float = 50.0
    """Steepness of the step from the shrink map over the threshold map to the binary map."""
    kernel_list: tuple[int, int, int] = (3, 2, 2)
    """Kernels of the convolution and of the two transposed ones that double the map. The teacher has (7, 2, 2)."""

    def __post_init__(self) -> None:
        first, *doubling = self.kernel_list
        if first < 1 or first % 2 == 0 or min(doubling) < 2 or max(self.kernel_list) > MOST_KERNEL:
            raise ConfigError(
                f"head.kernel_list: expected an odd kernel and two of at least 2, none above {MOST_KERNEL}, "
                f"found {list(self.kernel_list)}"
            )


@dataclass(frozen=True)
class Maps:
    """A detector's answer: three maps `(N, H, W)` of probabilities in [0, 1], as large as the pictures.

    The paper's P, T and B. float32 (float64 from a float64 net), also under autocast: bf16 would round every
    probability above 0.998 to 1.
    """

    shrink: Tensor
    """That a pixel lies in a text's shrunk kernel."""
    threshold: Tensor
    """Where the cut between text and background lies at this pixel."""
    binary: Tensor
    """sigmoid(k (shrink - threshold)), a cut that has a gradient."""


class DBHead(nn.Module):
    """A map `(N, in_channels, H/4, W/4)` to `Maps` of `(N, H, W)`.

    Source: Liao et al. 2020, arXiv 1911.08947, section 3.2; reference name `DBHead`.
    """

    def __init__(self, in_channels: int, cfg: DBHeadConfig) -> None:
        super().__init__()
        self.k = cfg.k
        self.binarize = Branch(in_channels, cfg.kernel_list)
        self.thresh = Branch(in_channels, cfg.kernel_list)

    def forward(self, x: Tensor) -> Maps:
        """See the class."""
        shrink, threshold = self.binarize(x), self.thresh(x)
        return Maps(shrink, threshold, torch.sigmoid(self.k * (shrink - threshold)))


class Branch(nn.Module):
    """Half of the head: a map `(N, in_channels, H/4, W/4)` to probabilities `(N, H, W)`."""

    def __init__(self, in_channels: int, kernel_list: tuple[int, int, int]) -> None:
        super().__init__()
        channels = in_channels // 4
        first, second, third = kernel_list
        self.conv1 = conv2d(in_channels, channels, first)
        self.conv_bn1 = BatchNorm(channels, shift=BN_SHIFT)
        self.conv2 = _doubling(channels, channels, second)
        self.conv_bn2 = BatchNorm(channels, shift=BN_SHIFT)
        self.conv3 = _doubling(channels, 1, third)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = F.relu(self.conv_bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.conv_bn2(self.conv2(x)), inplace=True)
        logits = self.conv3(x).squeeze(1)
        return torch.sigmoid(logits.to(torch.promote_types(logits.dtype, torch.float32)))


def _doubling(in_channels: int, out_channels: int, kernel: int) -> nn.ConvTranspose2d:
    """A transposed convolution of stride 2 that doubles height and width.

    The reference pads nothing, so that its maps match the pictures with kernel 2 only; there this is the same.
    """
    padding, odd = (kernel - 1) // 2, kernel % 2
    conv = nn.ConvTranspose2d(in_channels, out_channels, kernel, stride=2, padding=padding, output_padding=odd)
    kaiming_uniform_(conv.weight)
    assert conv.bias is not None
    bound = 1 / sqrt(in_channels)
    nn.init.uniform_(conv.bias, -bound, bound)
    return conv
