"""LK-PAN: the teacher's neck, a path aggregation network with large kernels."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ocr_ray.errors import ConfigError
from ocr_ray.models.batch_norm import BatchNorm
from ocr_ray.models.features import MOST_CHANNELS, Channels, Features, concatenate, top_down
from ocr_ray.models.init import conv2d, kaiming_conv2d

LARGE_KERNEL = 9


@dataclass(frozen=True)
class LKPANConfig:
    """Path aggregation network with 9x9 kernels."""

    kind: Literal["lkpan"] = "lkpan"
    out_channels: int = 256
    mode: Literal["large", "lite"] = "large"
    """`lite` splits each 9x9 convolution into a depth-wise one and 1x1 ones, with batch normalisation between."""

    def __post_init__(self) -> None:
        if not 4 <= self.out_channels <= MOST_CHANNELS or self.out_channels % 4:
            raise ConfigError(
                f"neck.out_channels: expected a multiple of 4 from 4 to {MOST_CHANNELS}, found {self.out_channels}"
            )


class LKPAN(nn.Module):
    """Four maps `(N, in_channels[i], H/s, W/s)`, s = 4, 8, 16, 32, to one `(N, out_channels, H/4, W/4)`.

    Coarse maps flow into fine ones, and after a large kernel fine ones back into coarse ones. `large` has no bias,
    normalisation or activation anywhere.

    Source: Li et al. 2022, arXiv 2206.03001 (PP-OCRv3), section 2.1; reference name `LKPAN`, without `intracl`.
    """

    def __init__(self, in_channels: Channels, cfg: LKPANConfig) -> None:
        super().__init__()
        wide, narrow = cfg.out_channels, cfg.out_channels // 4
        self.out_channels = wide
        self.ins_conv = nn.ModuleList(kaiming_conv2d(c, wide, 1) for c in in_channels)
        self.inp_conv = nn.ModuleList(_large(wide, narrow, cfg.mode) for _ in range(4))
        self.pan_head_conv = nn.ModuleList(kaiming_conv2d(narrow, narrow, 3, stride=2) for _ in range(3))
        self.pan_lat_conv = nn.ModuleList(_large(narrow, narrow, cfg.mode) for _ in range(4))

    def forward(self, features: Features) -> Tensor:
        """See the class."""
        c2, c3, c4, c5 = (conv(c) for conv, c in zip(self.ins_conv, features, strict=True))
        merged = top_down(c2, c3, c4, c5)
        n2, f3, f4, f5 = (conv(o) for conv, o in zip(self.inp_conv, merged, strict=True))
        n3 = f3 + self.pan_head_conv[0](n2)
        n4 = f4 + self.pan_head_conv[1](n3)
        n5 = f5 + self.pan_head_conv[2](n4)
        p2, p3, p4, p5 = (conv(n) for conv, n in zip(self.pan_lat_conv, (n2, n3, n4, n5), strict=True))
        return concatenate(p2, p3, p4, p5)


class SeparableConv(nn.Module):
    """A 9x9 convolution in parts: depth-wise, BN, 1x1 to four times the channels, BN, ReLU, 1x1 to the output.

    A 1x1 convolution of the input is added where the channels change; where they stay, nothing is.

    Source: reference name `DSConv`.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = conv2d(in_channels, in_channels, LARGE_KERNEL, groups=in_channels)
        self.bn1 = BatchNorm(in_channels)
        self.conv2 = conv2d(in_channels, 4 * in_channels, 1)
        self.bn2 = BatchNorm(4 * in_channels)
        self.conv3 = conv2d(4 * in_channels, out_channels, 1)
        self.conv_end = conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in, H, W)` to `(N, out, H, W)`."""
        y = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))), inplace=True)
        y = self.conv3(y)
        return y if self.conv_end is None else y + self.conv_end(x)


def _large(in_channels: int, out_channels: int, mode: Literal["large", "lite"]) -> nn.Module:
    match mode:
        case "large":
            return kaiming_conv2d(in_channels, out_channels, LARGE_KERNEL)
        case "lite":
            return SeparableConv(in_channels, out_channels)
