"""ResNet-vd 18, 34 and 50 as a detector's backbone, of any width."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ocr_ray.errors import ConfigError
from ocr_ray.models.features import MOST_WIDTH, Channels, Features
from ocr_ray.models.layers import ConvBN

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
STEM_CHANNELS = (32, 64)
STAGE_CHANNELS = (64, 128, 256, 512)

Shortcut = Literal["identity", "conv", "pool_conv"]
"""What reaches a unit's sum beside its convolutions: the input, its 1x1 convolution, or that of its 2x2 means, where
the unit halves the map."""


@dataclass(frozen=True)
class ResNetVdConfig:
    """ResNet, variant D."""

    kind: Literal["resnet_vd"] = "resnet_vd"
    layers: Literal[18, 34, 50] = 50
    width: float = 1.0
    """Factor on all channels. Released weights exist for 1."""

    def __post_init__(self) -> None:
        if self.layers not in DEPTHS:
            raise ConfigError(f"backbone.layers: expected 18, 34 or 50, found {self.layers}")
        if not 0 < self.width <= MOST_WIDTH:
            raise ConfigError(f"backbone.width: expected more than 0 and at most {MOST_WIDTH:g}, found {self.width:g}")


class ResNetVd(nn.Module):
    """`(N, 3, H, W)`, H and W multiples of 32, to four maps `(N, out_channels[i], H/s, W/s)`, s = 4, 8, 16, 32.

    Source: He et al. 2018, arXiv 1812.01187, ResNet-D: three 3x3 convolutions as stem, average pooling before the 1x1
    convolution of a shrinking shortcut; reference name `ResNet_vd`, without its deformable convolutions.
    """

    out_channels: Channels

    def __init__(self, cfg: ResNetVdConfig) -> None:
        super().__init__()
        narrow, wide = (scaled(c, cfg.width) for c in STEM_CHANNELS)
        self.conv1_1 = ConvBN(3, narrow, 3, stride=2, activation="relu")
        self.conv1_2 = ConvBN(narrow, narrow, 3, activation="relu")
        self.conv1_3 = ConvBN(narrow, wide, 3, activation="relu")
        block = Bottleneck if cfg.layers >= 50 else BasicBlock
        stages: list[nn.Module] = []
        channels, outs = wide, []
        for stage, (depth, filters) in enumerate(zip(DEPTHS[cfg.layers], STAGE_CHANNELS, strict=True)):
            units: list[nn.Module] = []
            shortcut: Shortcut = "conv" if stage == 0 else "pool_conv"
            for _ in range(depth):
                unit = block(channels, scaled(filters, cfg.width), shortcut)
                units.append(unit)
                channels, shortcut = unit.out_channels, "identity"
            stages.append(nn.Sequential(*units))
            outs.append(channels)
        self.stages = nn.ModuleList(stages)
        self.out_channels = (outs[0], outs[1], outs[2], outs[3])

    def forward(self, images: Tensor) -> Features:
        """See the class."""
        x = self.conv1_3(self.conv1_2(self.conv1_1(images)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        c2 = self.stages[0](x)
        c3 = self.stages[1](c2)
        c4 = self.stages[2](c3)
        return c2, c3, c4, self.stages[3](c4)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to four times the filters, plus the shortcut: ResNet-50's unit."""

    def __init__(self, in_channels: int, filters: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.out_channels = 4 * filters
        stride = 2 if shortcut == "pool_conv" else 1
        self.conv0 = ConvBN(in_channels, filters, 1, activation="relu")
        self.conv1 = ConvBN(filters, filters, 3, stride, activation="relu")
        self.conv2 = ConvBN(filters, self.out_channels, 1)
        self.short = None if shortcut == "identity" else ConvBN(in_channels, self.out_channels, 1)
        self.shortcut: Shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in, H, W)` to `(N, out_channels, H, W)`, half of H and W under `pool_conv`."""
        y = self.conv2(self.conv1(self.conv0(x)))
        return F.relu(y + _short(x, self.short, self.shortcut), inplace=True)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, plus the shortcut: the unit of ResNet-18 and 34."""

    def __init__(self, in_channels: int, filters: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.out_channels = filters
        self.conv0 = ConvBN(in_channels, filters, 3, 2 if shortcut == "pool_conv" else 1, activation="relu")
        self.conv1 = ConvBN(filters, filters, 3)
        self.short = None if shortcut == "identity" else ConvBN(in_channels, filters, 1)
        self.shortcut: Shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in, H, W)` to `(N, out_channels, H, W)`, half of H and W under `pool_conv`."""
        y = self.conv1(self.conv0(x))
        return F.relu(y + _short(x, self.short, self.shortcut), inplace=True)


def _short(x: Tensor, conv: ConvBN | None, shortcut: Shortcut) -> Tensor:
    if conv is None:
        return x
    # Odd sizes round up as the strided convolution's do, and the mean counts pixels of the map alone.
    return conv(F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) if shortcut == "pool_conv" else x)


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded, at least 1."""
    return max(1, round(channels * width))
