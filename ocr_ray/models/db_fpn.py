"""The feature pyramid of the first DB detectors."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ocr_ray.errors import ConfigError
from ocr_ray.models.features import MOST_CHANNELS, Channels, Features, concatenate, top_down
from ocr_ray.models.init import kaiming_conv2d


@dataclass(frozen=True)
class DBFPNConfig:
    """Feature pyramid without further parts."""

    kind: Literal["db_fpn"] = "db_fpn"
    out_channels: int = 256

    def __post_init__(self) -> None:
        if not 4 <= self.out_channels <= MOST_CHANNELS or self.out_channels % 4:
            raise ConfigError(
                f"neck.out_channels: expected a multiple of 4 from 4 to {MOST_CHANNELS}, found {self.out_channels}"
            )


class DBFPN(nn.Module):
    """Four maps `(N, in_channels[i], H/s, W/s)`, s = 4, 8, 16, 32, to one `(N, out_channels, H/4, W/4)`.

    Source: Liao et al. 2020, arXiv 1911.08947; reference name `DBFPN`, without its adaptive scale fusion.
    """

    def __init__(self, in_channels: Channels, cfg: DBFPNConfig) -> None:
        super().__init__()
        wide, narrow = cfg.out_channels, cfg.out_channels // 4
        self.out_channels = wide
        self.in2_conv = kaiming_conv2d(in_channels[0], wide, 1)
        self.in3_conv = kaiming_conv2d(in_channels[1], wide, 1)
        self.in4_conv = kaiming_conv2d(in_channels[2], wide, 1)
        self.in5_conv = kaiming_conv2d(in_channels[3], wide, 1)
        self.p5_conv = kaiming_conv2d(wide, narrow, 3)
        self.p4_conv = kaiming_conv2d(wide, narrow, 3)
        self.p3_conv = kaiming_conv2d(wide, narrow, 3)
        self.p2_conv = kaiming_conv2d(wide, narrow, 3)

    def forward(self, features: Features) -> Tensor:
        """See the class."""
        c2, c3, c4, c5 = features
        o2, o3, o4, o5 = top_down(self.in2_conv(c2), self.in3_conv(c3), self.in4_conv(c4), self.in5_conv(c5))
        return concatenate(self.p2_conv(o2), self.p3_conv(o3), self.p4_conv(o4), self.p5_conv(o5))
