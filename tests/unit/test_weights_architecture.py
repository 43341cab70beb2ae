"""A detector's architecture, read off names and shapes."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ocr_ray.errors import WeightsError
from ocr_ray.models.db_fpn import DBFPNConfig
from ocr_ray.models.db_head import DBHeadConfig
from ocr_ray.models.detector import Detector, DetectorConfig, teacher_config
from ocr_ray.models.lkpan import LKPANConfig
from ocr_ray.models.mobilenet_v3 import MobileNetV3Config
from ocr_ray.models.resnet_vd import ResNetVdConfig
from ocr_ray.models.rse_fpn import RSEFPNConfig
from ocr_ray.typed import flatten, with_values
from ocr_ray.weights.architecture import NOT_IN_SHAPES, describe, outline, recognise


def arrays_of(cfg: DetectorConfig) -> dict[str, NDArray[np.float32]]:
    with torch.device("meta"):
        state = Detector(cfg).state_dict()
    return {name: np.broadcast_to(np.float32(0), tuple(tensor.shape)) for name, tensor in state.items()}


BACKBONES = [
    *(MobileNetV3Config(scale=s, use_se=se) for s in (0.35, 0.5, 0.75, 1.0, 1.25) for se in (False, True)),
    *(ResNetVdConfig(layers=n, width=w) for n in (18, 34, 50) for w in (0.25, 0.5, 1.0)),
]
NECKS = [
    RSEFPNConfig(out_channels=32),
    RSEFPNConfig(),
    LKPANConfig(),
    LKPANConfig(out_channels=64, mode="lite"),
    DBFPNConfig(),
    DBFPNConfig(out_channels=96),
]


@pytest.mark.parametrize("backbone", BACKBONES, ids=str)
def test_backbones_are_recognised(backbone: MobileNetV3Config | ResNetVdConfig) -> None:
    cfg = DetectorConfig(backbone, RSEFPNConfig(out_channels=32))
    assert recognise(arrays_of(cfg), "a file") == cfg


@pytest.mark.parametrize("neck", NECKS, ids=str)
@pytest.mark.parametrize("kernel_list", [(3, 2, 2), (7, 2, 2), (5, 3, 2)])
def test_necks_and_heads_are_recognised(
    neck: RSEFPNConfig | LKPANConfig | DBFPNConfig, kernel_list: tuple[int, int, int]
) -> None:
    cfg = DetectorConfig(ResNetVdConfig(layers=18, width=0.25), neck, DBHeadConfig(kernel_list=kernel_list))
    assert recognise(arrays_of(cfg), "a file") == cfg


def test_what_leaves_no_trace_in_shapes_is_known_by_name() -> None:
    silent = set()
    for neck in (RSEFPNConfig(), LKPANConfig(), DBFPNConfig()):
        for backbone in (MobileNetV3Config(), ResNetVdConfig(layers=18)):
            cfg = DetectorConfig(backbone, neck)
            for key, value in flatten(cfg).items():
                if key.endswith(".kind"):
                    continue
                others = {18: 34, "large": "lite", 0.5: 0.75, 1.0: 0.5, 50.0: 30.0}
                other = not value if isinstance(value, bool) else [5, 2, 2] if isinstance(value, list | tuple) else None
                moved = with_values(cfg, {key: others.get(value, 64) if other is None else other}, "t")
                if shapes(moved) == shapes(cfg):
                    silent.add(key)
    assert silent == set(NOT_IN_SHAPES)


def shapes(cfg: DetectorConfig) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in outline(cfg).state_dict().items()}


@pytest.mark.parametrize("factor", [0.13, 0.31, 0.4375, 0.627, 1.9])
@pytest.mark.parametrize("kind", ["mobilenet_v3", "resnet_vd"])
def test_an_odd_width_gives_a_net_of_the_same_shapes(kind: str, factor: float) -> None:
    backbone = MobileNetV3Config(scale=factor) if kind == "mobilenet_v3" else ResNetVdConfig(layers=18, width=factor)
    cfg = DetectorConfig(backbone)
    arrays = arrays_of(cfg)
    found = arrays_of(recognise(arrays, "a file"))  # perhaps of another factor, where several round to the same
    assert {n: a.shape for n, a in found.items()} == {n: a.shape for n, a in arrays.items()}


def test_the_threshold_branch_may_be_absent_but_not_in_part() -> None:
    arrays = arrays_of(DetectorConfig())
    del arrays["head.thresh.conv1.weight"]
    with pytest.raises(WeightsError, match=r"300 of 301 arrays matched; missing head\.thresh\.conv1"):
        recognise(arrays, "a file")
    for name in list(arrays):
        if name.startswith("head.thresh."):
            del arrays[name]
    assert recognise(arrays, "a file") == DetectorConfig()


def changed_neck(arrays: dict[str, NDArray[np.float32]]) -> None:
    arrays["neck.incl1.bn.weight"] = np.zeros(64, np.float32)


def deeper_resnet(arrays: dict[str, NDArray[np.float32]]) -> None:
    for name in list(arrays):
        if name.startswith("backbone.stages.2.5."):
            for unit in range(6, 23):
                arrays[name.replace(".2.5.", f".2.{unit}.")] = arrays[name]


def without_neck(arrays: dict[str, NDArray[np.float32]]) -> None:
    for name in list(arrays):
        if name.startswith("neck."):
            del arrays[name]


def backbone_alone(arrays: dict[str, NDArray[np.float32]]) -> None:
    for name in list(arrays):
        if not name.startswith("backbone."):
            del arrays[name]


def other_backbone(arrays: dict[str, NDArray[np.float32]]) -> None:
    for name in list(arrays):
        arrays[name.replace("backbone.", "backbone.blocks3.")] = arrays.pop(name)


def prefixed(arrays: dict[str, NDArray[np.float32]]) -> None:
    for name in list(arrays):
        arrays[f"module.net.{name}"] = arrays.pop(name)


def flat_head(arrays: dict[str, NDArray[np.float32]]) -> None:
    arrays["head.binarize.conv1.weight"] = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed_neck, r"most like resnet_vd 50, lkpan 256, head 7-2-2, but 316 of 316 .* unexpected neck\.incl1"),
        (deeper_resnet, r"a resnet_vd of \[3, 4, 23, 3\] bottleneck units; found backbone \(530 arrays\)"),
        (without_neck, r"expected backbone, neck and head; found backbone \(275 arrays\), head \(26 arrays\)"),
        (backbone_alone, r"a backbone alone \(resnet_vd 50\), a start for training only; found backbone"),
        (other_backbone, r"neither mobilenet_v3 nor resnet_vd; found backbone \(275 arrays\), neck"),
        (prefixed, r"expected .* head, and without the prefix 'module\.net\.' they would be there; found module"),
        (flat_head, r"head\.binarize\.conv1\.weight is \[3\], expected 4 sides"),
        (dict.clear, r"expected backbone, neck and head"),
    ],
)
def test_an_unknown_net_says_what_was_seen(change: object, said: str) -> None:
    arrays = arrays_of(teacher_config())
    change(arrays)  # type: ignore[operator]
    with pytest.raises(WeightsError, match=said) as caught:
        recognise(arrays, "a file")
    assert str(caught.value).startswith("a file: no detector that is known here: ")
    assert "\n" not in str(caught.value)


def test_descriptions_are_short() -> None:
    assert describe(DetectorConfig()) == "mobilenet_v3 x0.5, rse_fpn 96, head 3-2-2"
    assert describe(teacher_config()) == "resnet_vd 50, lkpan 256, head 7-2-2"
    small = DetectorConfig(ResNetVdConfig(layers=18, width=0.5), LKPANConfig(out_channels=64, mode="lite"))
    assert describe(small) == "resnet_vd 18 x0.5, lkpan 64 lite, head 3-2-2"
    with_se = DetectorConfig(MobileNetV3Config(scale=0.75, use_se=True), DBFPNConfig())
    assert describe(with_se) == "mobilenet_v3 x0.75 with squeeze-excite, db_fpn 256, head 3-2-2"
