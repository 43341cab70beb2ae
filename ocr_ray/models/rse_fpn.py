"""RSE-FPN: the student's neck, a feature pyramid with residual squeeze-excite."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ocr_ray.errors import ConfigError
from ocr_ray.models.features import MOST_CHANNELS, Channels, Features, concatenate, top_down
from ocr_ray.models.init import kaiming_conv2d
from ocr_ray.models.layers import SqueezeExcite


@dataclass(frozen=True)
class RSEFPNConfig:
    """Feature pyramid with residual squeeze-excite."""

    kind: Literal["rse_fpn"] = "rse_fpn"
    out_channels: int = 96
    shortcut: bool = True
    """Add the input of each squeeze-excite to its output. Without it gates near 0 hide whole channels."""

    def __post_init__(self) -> None:
        if not 16 <= self.out_channels <= MOST_CHANNELS or self.out_channels % 4:
            raise ConfigError(
                f"neck.out_channels: expected a multiple of 4 from 16 to {MOST_CHANNELS}, found {self.out_channels}"
            )


class RSEFPN(nn.Module):
    """Four maps `(N, in_channels[i], H/s, W/s)`, s = 4, 8, 16, 32, to one `(N, out_channels, H/4, W/4)`.

    Source: Li et al. 2022, arXiv 2206.03001 (PP-OCRv3), section 2.1; reference name `RSEFPN`.
    """

    def __init__(self, in_channels: Channels, cfg: RSEFPNConfig) -> None:
        super().__init__()
        wide, narrow = cfg.out_channels, cfg.out_channels // 4
        self.out_channels = wide
        self.ins_conv = nn.ModuleList(RSELayer(c, wide, 1, cfg.shortcut) for c in in_channels)
        self.inp_conv = nn.ModuleList(RSELayer(wide, narrow, 3, cfg.shortcut) for _ in in_channels)

    def forward(self, features: Features) -> Tensor:
        """See the class."""
        c2, c3, c4, c5 = (conv(c) for conv, c in zip(self.ins_conv, features, strict=True))
        merged = top_down(c2, c3, c4, c5)
        p2, p3, p4, p5 = (conv(o) for conv, o in zip(self.inp_conv, merged, strict=True))
        return concatenate(p2, p3, p4, p5)


class RSELayer(nn.Module):
    """A convolution whose output channels are scaled by 1 + gate (by the gate alone without `shortcut`)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, shortcut: bool) -> None:
        super().__init__()
        self.in_conv = kaiming_conv2d(in_channels, out_channels, kernel)
        self.se_block = SqueezeExcite(out_channels)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in, H, W)` to `(N, out, H, W)`."""
        x = self.in_conv(x)
        gate = self.se_block(x)
        # x + x * gate, with one pass over the map instead of two
        return x * (1 + gate) if self.shortcut else x * gate
