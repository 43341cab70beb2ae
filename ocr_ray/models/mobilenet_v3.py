"""MobileNetV3-large as a detector's backbone, of any width."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ocr_ray.errors import ConfigError
from ocr_ray.models.features import MOST_WIDTH, Channels, Features
from ocr_ray.models.layers import Activation, ConvBN, SqueezeExcite

# kernel, expanded channels, output channels, squeeze-excite, activation, stride; at scale 1
UNITS: tuple[tuple[int, int, int, bool, Activation, int], ...] = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hardswish", 2),
    (3, 200, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 480, 112, True, "hardswish", 1),
    (3, 672, 112, True, "hardswish", 1),
    (5, 672, 160, True, "hardswish", 2),
    (5, 960, 160, True, "hardswish", 1),
    (5, 960, 160, True, "hardswish", 1),
)
STEM_CHANNELS, LAST_CHANNELS = 16, 960
STAGES = ((0, 3), (3, 6), (6, 12), (12, 15))  # units of each stage; one ends before its map is halved


@dataclass(frozen=True)
class MobileNetV3Config:
    """MobileNetV3-large."""

    kind: Literal["mobilenet_v3"] = "mobilenet_v3"
    scale: float = 0.5
    """Factor on all channels, which are then rounded to multiples of 8."""
    use_se: bool = False
    """Squeeze-excite in the units that have it in the paper. PP-OCRv3 leaves it out, for speed."""

    def __post_init__(self) -> None:
        if not 0 < self.scale <= MOST_WIDTH:
            raise ConfigError(f"backbone.scale: expected more than 0 and at most {MOST_WIDTH:g}, found {self.scale:g}")


class MobileNetV3(nn.Module):
    """`(N, 3, H, W)`, H and W multiples of 32, to four maps `(N, out_channels[i], H/s, W/s)`, s = 4, 8, 16, 32.

    Source: Howard et al. 2019, arXiv 1905.02244; reference name `MobileNetV3` of the detectors, which gives the last
    convolution's map at stride 32 and expands in every unit, the first included.
    """

    out_channels: Channels

    def __init__(self, cfg: MobileNetV3Config) -> None:
        super().__init__()
        units: list[nn.Module] = []
        channels = round_channels(STEM_CHANNELS * cfg.scale)
        self.conv = ConvBN(3, channels, 3, stride=2, activation="hardswish")
        widths = []
        for kernel, expanded, out, has_se, activation, stride in UNITS:
            middle, out = round_channels(expanded * cfg.scale), round_channels(out * cfg.scale)
            units.append(InvertedResidual(channels, middle, out, kernel, stride, activation, has_se and cfg.use_se))
            channels = out
            widths.append(out)
        last = round_channels(LAST_CHANNELS * cfg.scale)
        units.append(ConvBN(channels, last, 1, activation="hardswish"))
        (a, b), (c, d), (e, f), (g, _) = STAGES
        self.stage0 = nn.Sequential(*units[a:b])
        self.stage1 = nn.Sequential(*units[c:d])
        self.stage2 = nn.Sequential(*units[e:f])
        self.stage3 = nn.Sequential(*units[g:])
        self.out_channels = (widths[b - 1], widths[d - 1], widths[f - 1], last)

    def forward(self, images: Tensor) -> Features:
        """See the class."""
        c2 = self.stage0(self.conv(images))
        c3 = self.stage1(c2)
        c4 = self.stage2(c3)
        return c2, c3, c4, self.stage3(c4)


class InvertedResidual(nn.Module):
    """Widen by a 1x1 convolution, filter each channel by itself, narrow again without activation.

    The input is added where the shape stays.
    """

    def __init__(
        self,
        in_channels: int,
        middle: int,
        out_channels: int,
        kernel: int,
        stride: int,
        activation: Activation,
        use_se: bool,
    ) -> None:
        super().__init__()
        self.expand_conv = ConvBN(in_channels, middle, 1, activation=activation)
        self.bottleneck_conv = ConvBN(middle, middle, kernel, stride, groups=middle, activation=activation)
        self.mid_se = SqueezeExcite(middle) if use_se else None
        self.linear_conv = ConvBN(middle, out_channels, 1)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in, H, W)` to `(N, out, H/stride, W/stride)`."""
        y = self.bottleneck_conv(self.expand_conv(x))
        if self.mid_se is not None:
            y = y * self.mid_se(y)
        y = self.linear_conv(y)
        return x + y if self.adds_input else y


def round_channels(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and never more than a tenth below `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
