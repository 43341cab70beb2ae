"""Which detector a file of weights is, read off its names and shapes."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray

from ocr_ray.errors import ConfigError, WeightsError
from ocr_ray.models.db_fpn import DBFPNConfig
from ocr_ray.models.db_head import DBHeadConfig
from ocr_ray.models.detector import Detector, DetectorConfig
from ocr_ray.models.lkpan import LKPANConfig
from ocr_ray.models.mobilenet_v3 import (
    LAST_CHANNELS,
    STAGES,
    STEM_CHANNELS,
    UNITS,
    MobileNetV3Config,
    round_channels,
)
from ocr_ray.models.resnet_vd import DEPTHS, STAGE_CHANNELS, ResNetVdConfig, scaled
from ocr_ray.models.resnet_vd import STEM_CHANNELS as RESNET_STEM_CHANNELS
from ocr_ray.models.rse_fpn import RSEFPNConfig
from ocr_ray.weights.coverage import Coverage, compare, shortened

Shapes = Mapping[str, tuple[int, ...]]
PARTS = ("backbone", "neck", "head")
NOT_IN_SHAPES = ("neck.shortcut", "head.k")
"""What of a detector's config leaves no trace in the shapes of its arrays."""


def recognise(arrays: Mapping[str, NDArray[Any]], source: str) -> DetectorConfig:
    """The architecture whose names and shapes these are. The branch `head.thresh` may be absent.

    What leaves no trace in shapes (`NOT_IN_SHAPES`) has its default.

    Args: arrays under our names, of one net.
    Raises: WeightsError naming `source` and what was seen, when it is none that this package can build.
    """
    shapes = {name: array.shape for name, array in arrays.items()}
    seen = Counter(name.split(".")[0] for name in shapes)
    try:
        if "backbone" in seen and not ("neck" in seen or "head" in seen):
            raise _Unknown(f"a backbone alone ({describe_backbone(_backbone(shapes))}), a start for training only")
        if not all(part in seen for part in PARTS):
            raise _Unknown(f"expected backbone, neck and head{_prefix_hint(shapes)}")
        cfg = DetectorConfig(_backbone(shapes), _neck(shapes), _head(shapes))
        coverage = _against(cfg, shapes)
        if not coverage.whole:
            raise _Unknown(f"most like {describe(cfg)}, but {coverage.faults.one_line()}")
    except (_Unknown, ConfigError) as e:
        found = shortened([f"{part} ({count} arrays)" for part, count in seen.items()])
        raise WeightsError(f"{source}: no detector that is known here: {e}; found {found}") from e
    return cfg


def outline(cfg: DetectorConfig) -> Detector:
    """The net without its arrays, on the device `meta`: names and shapes, whatever their size, and no memory."""
    with torch.device("meta"):
        return Detector(cfg)


def describe(cfg: DetectorConfig) -> str:
    """In words, e.g. `mobilenet_v3 x0.5, rse_fpn 96, head 3-2-2`."""
    neck = f"{cfg.neck.kind} {cfg.neck.out_channels}"
    if isinstance(cfg.neck, LKPANConfig) and cfg.neck.mode != "large":
        neck += f" {cfg.neck.mode}"
    return f"{describe_backbone(cfg.backbone)}, {neck}, head {'-'.join(map(str, cfg.head.kernel_list))}"


def describe_backbone(cfg: MobileNetV3Config | ResNetVdConfig) -> str:
    """In words, e.g. `resnet_vd 50`."""
    match cfg:
        case MobileNetV3Config():
            return f"mobilenet_v3 x{cfg.scale:g}" + (" with squeeze-excite" if cfg.use_se else "")
        case ResNetVdConfig():
            return f"resnet_vd {cfg.layers}" + (f" x{cfg.width:g}" if cfg.width != 1 else "")


class _Unknown(Exception):
    """What was expected of a part and is not there."""


def _backbone(shapes: Shapes) -> MobileNetV3Config | ResNetVdConfig:
    if "backbone.stage0.0.expand_conv.conv.weight" in shapes:
        return _mobilenet(shapes)
    if "backbone.conv1_1.conv.weight" in shapes:
        return _resnet(shapes)
    raise _Unknown("a backbone that is neither mobilenet_v3 nor resnet_vd")


def _mobilenet(shapes: Shapes) -> MobileNetV3Config:
    full = [STEM_CHANNELS, LAST_CHANNELS]
    layers = ["conv", f"stage3.{STAGES[3][1] - STAGES[3][0]}"]
    for stage, (first, end) in enumerate(STAGES):
        for unit, (_, expanded, out, _, _, _) in enumerate(UNITS[first:end]):
            full += [expanded, out]
            layers += [f"stage{stage}.{unit}.expand_conv", f"stage{stage}.{unit}.linear_conv"]
    seen = [_shape(shapes, f"backbone.{layer}.conv.weight")[0] for layer in layers]
    scale = _factor(seen, lambda scale: [round_channels(c * scale) for c in full], seen[1] / LAST_CHANNELS)
    return MobileNetV3Config(scale=scale, use_se=any(".mid_se." in name for name in shapes))


def _resnet(shapes: Shapes) -> ResNetVdConfig:
    is_bottleneck = "backbone.stages.0.0.conv2.conv.weight" in shapes
    units = {tuple(name.split(".")[2:4]) for name in shapes if name.startswith("backbone.stages.")}
    counted = Counter(stage for stage, *_ in units)
    depth = tuple(counted[stage] for stage in sorted(counted))
    layers = next((n for n, d in DEPTHS.items() if d == depth and (n >= 50) == is_bottleneck), None)
    if layers is None:
        raise _Unknown(f"a resnet_vd of {list(depth)} {'bottleneck' if is_bottleneck else 'basic'} units")
    full = [*RESNET_STEM_CHANNELS, *STAGE_CHANNELS]
    names = ["conv1_1", "conv1_3", *(f"stages.{stage}.0.conv1" for stage in range(len(STAGE_CHANNELS)))]
    seen = [_shape(shapes, f"backbone.{name}.conv.weight")[0] for name in names]
    width = _factor(seen, lambda width: [scaled(c, width) for c in full], seen[-1] / full[-1])
    return ResNetVdConfig(layers=layers, width=width)  # type: ignore[arg-type]


def _factor(seen: list[int], channels: Callable[[float], list[int]], quotient: float) -> float:
    """The roundest factor near `quotient` that gives the channels that were seen; where none does, `quotient`.

    Channels are rounded after they are multiplied, so that several factors may give the same net.
    """
    for steps in (100, 1000, 10_000):
        middle = round(quotient * steps)
        near = range(max(1, middle - steps // 50), middle + steps // 50 + 1)
        for step in sorted(near, key=lambda step: abs(step - middle)):
            if channels(step / steps) == seen:
                return step / steps
    return quotient


def _neck(shapes: Shapes) -> RSEFPNConfig | LKPANConfig | DBFPNConfig:
    if "neck.in2_conv.weight" in shapes:
        return DBFPNConfig(out_channels=_shape(shapes, "neck.in2_conv.weight")[0])
    if "neck.ins_conv.0.in_conv.weight" in shapes:
        return RSEFPNConfig(out_channels=_shape(shapes, "neck.ins_conv.0.in_conv.weight")[0])
    if "neck.ins_conv.0.weight" in shapes:
        mode = "large" if "neck.inp_conv.0.weight" in shapes else "lite"
        return LKPANConfig(out_channels=_shape(shapes, "neck.ins_conv.0.weight")[0], mode=mode)  # type: ignore[arg-type]
    raise _Unknown("a neck that is neither rse_fpn nor lkpan nor db_fpn")


def _head(shapes: Shapes) -> DBHeadConfig:
    first, second, third = (_shape(shapes, f"head.binarize.conv{n}.weight")[-1] for n in (1, 2, 3))
    return DBHeadConfig(kernel_list=(first, second, third))


def _prefix_hint(shapes: Shapes) -> str:
    """What stands in front of the names of the three parts, where it is the same everywhere."""
    prefixes = set()
    for name in shapes:
        segments = name.split(".")
        first = next((i for i, segment in enumerate(segments) if segment in PARTS), 0)
        prefixes.add(".".join(segments[:first]))
    prefix = prefixes.pop() if len(prefixes) == 1 else ""
    return f", and without the prefix '{prefix}.' they would be there" if prefix else ""


def _shape(shapes: Shapes, name: str) -> tuple[int, ...]:
    if len(shapes.get(name, ())) != 4:
        raise _Unknown(f"{name} is {list(shapes[name]) if name in shapes else 'not there'}, expected 4 sides")
    return shapes[name]


def _against(cfg: DetectorConfig, shapes: Shapes) -> Coverage:
    state = outline(cfg).state_dict()
    thresh_is_there = any(name.startswith("head.thresh.") for name in shapes)
    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    return compare(expected, shapes, "", () if thresh_is_there else ("head.thresh",))
