"""Backbone, neck and head, put together."""

from dataclasses import dataclass, field
from typing import assert_never

from torch import Tensor, nn

from ocr_ray.models.db_fpn import DBFPN, DBFPNConfig
from ocr_ray.models.db_head import DBHead, DBHeadConfig, Maps
from ocr_ray.models.features import Channels
from ocr_ray.models.lkpan import LKPAN, LKPANConfig
from ocr_ray.models.mobilenet_v3 import MobileNetV3, MobileNetV3Config
from ocr_ray.models.resnet_vd import ResNetVd, ResNetVdConfig
from ocr_ray.models.rse_fpn import RSEFPN, RSEFPNConfig

STRIDE = 32
"""Pictures have sides that are multiples of this."""


@dataclass(frozen=True)
class DetectorConfig:
    """The architecture of one net. The default is PP-OCRv3's student: 603,418 trainable numbers."""

    backbone: MobileNetV3Config | ResNetVdConfig = field(default_factory=MobileNetV3Config)
    neck: RSEFPNConfig | LKPANConfig | DBFPNConfig = field(default_factory=RSEFPNConfig)
    head: DBHeadConfig = field(default_factory=DBHeadConfig)


def teacher_config() -> DetectorConfig:
    """PP-OCRv3's teacher: 32,895,970 trainable numbers."""
    return DetectorConfig(ResNetVdConfig(layers=50), LKPANConfig(out_channels=256), DBHeadConfig(kernel_list=(7, 2, 2)))


class Detector(nn.Module):
    """Pictures to the maps from which text outlines are read.

    Args of its calls: images `(N, 3, H, W)`, normalised, channels B, G, R, H and W multiples of 32. They raise
    ValueError for another shape. Random initial weights are the reference's and depend on torch's seed alone.
    """

    def __init__(self, cfg: DetectorConfig) -> None:
        super().__init__()
        self.backbone = build_backbone(cfg.backbone)
        self.neck = build_neck(self.backbone.out_channels, cfg.neck)
        self.head = DBHead(self.neck.out_channels, cfg.head)

    def forward(self, images: Tensor) -> Maps:
        """All three maps, in training and in eval mode alike."""
        return self.head(self._features(images))

    def shrink_map(self, images: Tensor) -> Tensor:
        """`Maps.shrink` alone, `(N, H, W)`; the threshold branch does not run."""
        return self.head.binarize(self._features(images))

    def _features(self, images: Tensor) -> Tensor:
        if images.dim() != 4 or images.shape[1] != 3 or images.shape[2] % STRIDE or images.shape[3] % STRIDE:
            raise ValueError(
                f"Detector: expected images (N, 3, H, W), H and W multiples of {STRIDE}, found {tuple(images.shape)}"
            )
        return self.neck(self.backbone(images))


def build_backbone(cfg: MobileNetV3Config | ResNetVdConfig) -> MobileNetV3 | ResNetVd:
    """The backbone that `cfg` describes."""
    match cfg:
        case MobileNetV3Config():
            return MobileNetV3(cfg)
        case ResNetVdConfig():
            return ResNetVd(cfg)
        case _:
            assert_never(cfg)


def build_neck(in_channels: Channels, cfg: RSEFPNConfig | LKPANConfig | DBFPNConfig) -> RSEFPN | LKPAN | DBFPN:
    """The neck that `cfg` describes, for a backbone with these `out_channels`."""
    match cfg:
        case RSEFPNConfig():
            return RSEFPN(in_channels, cfg)
        case LKPANConfig():
            return LKPAN(in_channels, cfg)
        case DBFPNConfig():
            return DBFPN(in_channels, cfg)
        case _:
            assert_never(cfg)
