"""What every backbone and every neck does. A new one is a line in the lists."""

import pytest
import torch
from torch import nn

from ocr_ray.models.db_fpn import DBFPNConfig
from ocr_ray.models.detector import build_backbone, build_neck
from ocr_ray.models.features import Features
from ocr_ray.models.lkpan import LKPANConfig
from ocr_ray.models.mobilenet_v3 import MobileNetV3Config
from ocr_ray.models.resnet_vd import ResNetVdConfig
from ocr_ray.models.rse_fpn import RSEFPNConfig

BACKBONES = [
    MobileNetV3Config(),
    MobileNetV3Config(use_se=True),
    MobileNetV3Config(scale=0.35),
    MobileNetV3Config(scale=1.0, use_se=True),
    ResNetVdConfig(layers=18, width=0.5),
    ResNetVdConfig(layers=18),
    ResNetVdConfig(layers=34, width=0.25),
    ResNetVdConfig(layers=50, width=0.5),
]
NECKS = [
    RSEFPNConfig(),
    RSEFPNConfig(out_channels=32, shortcut=False),
    LKPANConfig(out_channels=32),
    LKPANConfig(out_channels=32, mode="lite"),
    DBFPNConfig(out_channels=96),
]
CHANNELS = (16, 24, 56, 480)
HEIGHT, WIDTH = 64, 96


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def pictures() -> torch.Tensor:
    return torch.randn(2, 3, HEIGHT, WIDTH)


def features() -> Features:
    c2, c3, c4, c5 = (torch.randn(2, c, HEIGHT // s, WIDTH // s) for c, s in zip(CHANNELS, (4, 8, 16, 32), strict=True))
    return c2, c3, c4, c5


def parameters_without_gradient(module: nn.Module) -> list[str]:
    return [
        n for n, p in module.named_parameters() if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()
    ]


def projected(x: torch.Tensor) -> torch.Tensor:
    """A number whose gradient to `x` is neither 0 nor the same everywhere, so that no normalisation removes it."""
    return (x * torch.randn_like(x)).sum()


@pytest.mark.parametrize("cfg", BACKBONES, ids=str)
class TestBackbone:
    def test_maps_are_as_large_and_as_deep_as_it_says(self, cfg: MobileNetV3Config | ResNetVdConfig) -> None:
        backbone = build_backbone(cfg)
        shapes = [tuple(f.shape) for f in backbone(pictures())]
        strides = (4, 8, 16, 32)
        assert shapes == [(2, c, HEIGHT // s, WIDTH // s) for c, s in zip(backbone.out_channels, strides, strict=True)]

    def test_gradient_reaches_each_parameter(self, cfg: MobileNetV3Config | ResNetVdConfig) -> None:
        backbone = build_backbone(cfg)
        torch.stack([projected(f) for f in backbone(pictures())]).sum().backward()
        assert parameters_without_gradient(backbone) == []

    def test_state_makes_the_round_trip(self, cfg: MobileNetV3Config | ResNetVdConfig) -> None:
        backbone, other = build_backbone(cfg), build_backbone(cfg)
        backbone(pictures())  # moves the statistics
        other.load_state_dict(dict(backbone.state_dict()))
        x = pictures()
        for a, b in zip(backbone.eval()(x), other.eval()(x), strict=True):
            assert torch.equal(a, b)

    def test_memory_layout_changes_nothing(self, cfg: MobileNetV3Config | ResNetVdConfig) -> None:
        backbone, x = build_backbone(cfg).eval(), pictures()
        with torch.no_grad():
            expected = backbone(x)
            found = backbone.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
        for a, b in zip(expected, found, strict=True):
            assert b.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(a.abs().max()))


@pytest.mark.parametrize("cfg", NECKS, ids=str)
class TestNeck:
    def test_map_is_as_deep_as_it_says(self, cfg: RSEFPNConfig | LKPANConfig | DBFPNConfig) -> None:
        neck = build_neck(CHANNELS, cfg)
        assert tuple(neck(features()).shape) == (2, neck.out_channels, HEIGHT // 4, WIDTH // 4)
        assert neck.out_channels == cfg.out_channels

    def test_gradient_reaches_each_parameter_and_feature(self, cfg: RSEFPNConfig | LKPANConfig | DBFPNConfig) -> None:
        neck = build_neck(CHANNELS, cfg)
        c2, c3, c4, c5 = (f.requires_grad_() for f in features())
        projected(neck((c2, c3, c4, c5))).backward()
        assert parameters_without_gradient(neck) == []
        assert all(f.grad is not None and f.grad.any() for f in (c2, c3, c4, c5))

    def test_state_makes_the_round_trip(self, cfg: RSEFPNConfig | LKPANConfig | DBFPNConfig) -> None:
        neck, other = build_neck(CHANNELS, cfg), build_neck(CHANNELS, cfg)
        neck(features())
        other.load_state_dict(dict(neck.state_dict()))
        x = features()
        assert torch.equal(neck.eval()(x), other.eval()(x))
