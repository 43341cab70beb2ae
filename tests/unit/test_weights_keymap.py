"""Names of weights: ours, PaddleOCR's, and those of classification nets."""

import pytest

from ocr_ray.models.db_fpn import DBFPNConfig
from ocr_ray.models.detector import Detector, DetectorConfig
from ocr_ray.models.lkpan import LKPANConfig
from ocr_ray.models.mobilenet_v3 import MobileNetV3Config
from ocr_ray.models.resnet_vd import ResNetVdConfig
from ocr_ray.weights.keymap import bare_backbone, to_ours, to_paddle

CONFIGS = [
    DetectorConfig(),
    DetectorConfig(MobileNetV3Config(use_se=True), DBFPNConfig()),
    DetectorConfig(ResNetVdConfig(layers=50), LKPANConfig()),
    DetectorConfig(ResNetVdConfig(layers=18, width=0.5), LKPANConfig(out_channels=64, mode="lite")),
    DetectorConfig(ResNetVdConfig(layers=34, width=0.25), DBFPNConfig(out_channels=32)),
]


@pytest.mark.parametrize("cfg", CONFIGS, ids=str)
def test_names_of_every_part_go_out_and_come_back(cfg: DetectorConfig) -> None:
    names = list(Detector(cfg).state_dict())
    theirs = [to_paddle(name) for name in names]
    assert [to_ours(name) for name in theirs] == names
    assert [to_ours(name) for name in names] == names
    assert len(set(theirs)) == len(names)
    assert not [name for name in theirs if "running_" in name or "stages." in name]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("backbone.conv1_2.bn.running_var", "backbone.conv1_2._batch_norm._variance"),
        ("backbone.stages.3.0.short.conv.weight", "backbone.bb_3_0.short._conv.weight"),
        ("backbone.stages.0.10.conv1.bn.bias", "backbone.bb_0_10.conv1._batch_norm.bias"),
        ("backbone.stage3.3.bn.running_mean", "backbone.stage3.3.bn._mean"),
        ("backbone.stage1.0.mid_se.conv2.bias", "backbone.stage1.0.mid_se.conv2.bias"),
        ("neck.pan_lat_conv.2.bn1.running_mean", "neck.pan_lat_conv.2.bn1._mean"),
        ("head.thresh.conv_bn2.running_var", "head.thresh.conv_bn2._variance"),
        ("head.binarize.conv3.bias", "head.binarize.conv3.bias"),
    ],
)
def test_names_by_hand(ours: str, theirs: str) -> None:
    assert to_paddle(ours) == theirs
    assert to_ours(theirs) == ours


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv1.conv.weight", "backbone.conv.conv.weight"),
        ("conv1.bn._mean", "backbone.conv.bn._mean"),
        ("conv2.expand_conv.conv.weight", "backbone.stage0.0.expand_conv.conv.weight"),
        ("conv4.linear_conv.bn.bias", "backbone.stage0.2.linear_conv.bn.bias"),
        ("conv5.mid_se.conv1.weight", "backbone.stage1.0.mid_se.conv1.weight"),
        ("conv8.expand_conv.conv.weight", "backbone.stage2.0.expand_conv.conv.weight"),
        ("conv13.expand_conv.conv.weight", "backbone.stage2.5.expand_conv.conv.weight"),
        ("conv16.linear_conv.conv.weight", "backbone.stage3.2.linear_conv.conv.weight"),
        ("blocks.0.expand_conv.conv.weight", "backbone.stage0.0.expand_conv.conv.weight"),
        ("blocks.14.bottleneck_conv.bn._variance", "backbone.stage3.2.bottleneck_conv.bn._variance"),
        ("stage2.1.expand_conv.conv.weight", "backbone.stage2.1.expand_conv.conv.weight"),
        ("conv.bn.weight", "backbone.conv.bn.weight"),
        ("last_second_conv.conv.weight", "backbone.stage3.3.conv.weight"),
        ("last_second_conv.bn._mean", "backbone.stage3.3.bn._mean"),
        ("last_conv.weight", None),
        ("out.bias", None),
        ("fc.weight", None),
    ],
)
def test_a_bare_mobilenet_is_understood(name: str, expected: str | None) -> None:
    names = bare_backbone([name, "conv3.expand_conv.conv.weight"])
    assert names is not None
    assert names[name] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv1_1._conv.weight", "backbone.conv1_1._conv.weight"),
        ("bb_3_2.conv0._batch_norm._mean", "backbone.bb_3_2.conv0._batch_norm._mean"),
        ("stem.0.conv.weight", "backbone.conv1_1.conv.weight"),
        ("stem.2.bn._variance", "backbone.conv1_3.bn._variance"),
        ("blocks.0.short.conv.weight", "backbone.bb_0_0.short.conv.weight"),
        ("blocks.3.conv1.bn.bias", "backbone.bb_1_0.conv1.bn.bias"),
        ("blocks.12.conv2.conv.weight", "backbone.bb_2_5.conv2.conv.weight"),
        ("blocks.15.conv0.conv.weight", "backbone.bb_3_2.conv0.conv.weight"),
        ("fc.weight", None),
        ("out.weight", None),
    ],
)
def test_a_bare_resnet_is_understood(name: str, expected: str | None) -> None:
    blocks = [f"blocks.{n}.conv0.conv.weight" for n in range(16)]
    names = bare_backbone([name, "conv1_1._conv.weight", *blocks])
    assert names is not None
    assert names[name] == expected


def test_a_bare_resnet_18_has_its_own_stages() -> None:
    names = bare_backbone(["stem.0.conv.weight", *(f"blocks.{n}.conv0.conv.weight" for n in range(8))])
    assert names is not None
    assert names["blocks.7.conv0.conv.weight"] == "backbone.bb_3_1.conv0.conv.weight"


def test_detectors_and_strangers_are_no_bare_backbones() -> None:
    assert bare_backbone(["backbone.conv1_1._conv.weight", "head.binarize.conv1.weight"]) is None
    assert bare_backbone(["Student.backbone.stage0.0.expand_conv.conv.weight"]) is None
    assert bare_backbone(["layer1.0.conv1.weight", "fc.weight"]) is None
