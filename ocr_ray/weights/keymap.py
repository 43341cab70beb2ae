"""PaddleOCR's names of parameters and running statistics, and ours: one to one, in and out.

    PaddleOCR                                       here
    ...bn._mean, ..._variance                       ...bn.running_mean, ...running_var
    backbone.conv1_1._conv.weight                   backbone.conv1_1.conv.weight
    backbone.bb_2_0.short._batch_norm.bias          backbone.stages.2.0.short.bn.bias

Everything else has the same name in both. Arrays have the same layout in both: nothing is transposed.
Names of classification nets (PaddleClas), as their ImageNet files have them, come in but do not go out.
"""

import re
from collections.abc import Iterable

_STATISTICS = {"_mean": "running_mean", "_variance": "running_var"}
_LAYERS = {"_conv": "conv", "_batch_norm": "bn"}
_RESNET = r"backbone\.(?:conv1_[123]|stages\.\d+\.\d+\.(?:conv[012]|short))\."


def to_ours(name: str) -> str:
    """Our name of what PaddleOCR calls `name`, without a sub-model's prefix. A name of ours stays as it is."""
    name = re.sub(r"^backbone\.bb_(\d+)_(\d+)\.", r"backbone.stages.\1.\2.", name)
    parts = [_LAYERS.get(part, part) for part in name.split(".")]
    return ".".join([*parts[:-1], _STATISTICS.get(parts[-1], parts[-1])])


def to_paddle(name: str) -> str:
    """PaddleOCR's name of our `name`, without a sub-model's prefix."""
    *front, last = name.split(".")
    name = ".".join([*front, {ours: theirs for theirs, ours in _STATISTICS.items()}.get(last, last)])
    if not re.match(_RESNET, name):
        return name
    for theirs, ours in _LAYERS.items():
        name = re.sub(rf"^({_RESNET}){ours}\.", rf"\g<1>{theirs}.", name)
    return re.sub(r"^backbone\.stages\.(\d+)\.(\d+)\.", r"backbone.bb_\1_\2.", name)


CLASSIFIER = ("last_conv", "out", "fc")
MOBILENET_STAGES = (0, 3, 6, 12, 15)  # index of the first of the 15 units in each of four stages, and their number
RESNET_STAGES = {8: (0, 2, 4, 6, 8), 16: (0, 3, 7, 13, 16)}  # by number of blocks


def bare_backbone(names: Iterable[str]) -> dict[str, str | None] | None:
    """PaddleOCR's names for those of a classification net's file; none for what only a classifier has.

    Known are the names of PaddleOCR's own backbones without `backbone.`, and both generations of PaddleClas
    (`conv2.expand_conv...` and `blocks.0.expand_conv...`; `bb_0_0.conv0...` and `blocks.0.conv0...`, `stem.0...`).
    Returns: None where the file is of another kind; a name that is not understood stays as it is.
    """
    names = list(names)
    heads = {name.split(".")[0] for name in names}
    if "stem" in heads or "conv1_1" in heads:
        blocks = {int(found[1]) for name in names if (found := re.match(r"blocks\.(\d{1,9})\.", name))}
        return {name: _resnet_name(name, len(blocks)) for name in names}
    if any(re.match(r"(conv\d+|blocks\.\d+|stage\d\.\d+)\.expand_conv\.", name) for name in names):
        return {name: _mobilenet_name(name) for name in names}
    return None


def _resnet_name(name: str, num_blocks: int) -> str | None:
    if name.split(".")[0] in CLASSIFIER:
        return None
    if found := re.fullmatch(r"stem\.([012])\.(.+)", name):
        return f"backbone.conv1_{int(found[1]) + 1}.{found[2]}"
    if (found := re.fullmatch(r"blocks\.(\d{1,9})\.(.+)", name)) and num_blocks in RESNET_STAGES:
        stage, unit = _stage_and_unit(int(found[1]), RESNET_STAGES[num_blocks])
        return f"backbone.bb_{stage}_{unit}.{found[2]}"
    return f"backbone.{name}"


def _mobilenet_name(name: str) -> str | None:
    if name.split(".")[0] in CLASSIFIER:
        return None
    if found := re.fullmatch(r"(?:conv1|conv)\.((?:conv|bn)\..+)", name):
        return f"backbone.conv.{found[1]}"
    if found := re.fullmatch(r"last_second_conv\.(.+)", name):
        return f"backbone.stage3.{MOBILENET_STAGES[4] - MOBILENET_STAGES[3]}.{found[1]}"
    if found := re.fullmatch(r"(?:conv(\d{1,9})|blocks\.(\d{1,9}))\.(.+)", name):
        index = int(found[1]) - 2 if found[1] else int(found[2])
        if 0 <= index < MOBILENET_STAGES[4]:
            stage, unit = _stage_and_unit(index, MOBILENET_STAGES)
            return f"backbone.stage{stage}.{unit}.{found[3]}"
    return f"backbone.{name}"


def _stage_and_unit(index: int, firsts: tuple[int, ...]) -> tuple[int, int]:
    stage = max(s for s, first in enumerate(firsts[:-1]) if first <= index)
    return stage, index - firsts[stage]
