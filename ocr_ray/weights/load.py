"""Files of weights into nets: read by suffix, named as we name, and never loaded in part unnoticed."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ocr_ray.errors import WeightsError
from ocr_ray.files import file_digest
from ocr_ray.weights.card_beside import read_card
from ocr_ray.weights.coverage import Coverage, compare, is_under, shortened
from ocr_ray.weights.keymap import bare_backbone, to_ours
from ocr_ray.weights.onnx_in import read_onnx
from ocr_ray.weights.pdparams import read_pdparams
from ocr_ray.weights.safetensors import read_npz, read_safetensors

Arrays = dict[str, NDArray[np.float32]]
SUB_MODELS = ("Student", "Student2", "Teacher")
SUFFIXES = (".safetensors", ".pdparams", ".onnx", ".npz")
CHECKPOINT_FILE = "model.safetensors"
BATCHES = "num_batches_tracked"  # PyTorch counts them in each BatchNorm; nothing reads the count here


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights holds, under our names."""

    path: Path
    format: str
    """Its suffix."""
    arrays: dict[str, Arrays]
    """By sub-model (`Student`, `Student2`, `Teacher`); a file of one net without such a name has the key `""`."""
    metadata: dict[str, str]
    dropped: tuple[str, ...] = ()
    """Names, as in the file, of a bare backbone's classifier, which no detector has."""
    is_bare_backbone: bool = False
    """Whether it is a classification net's file, under that net's names."""

    def pick(self, model: str | None = None, preferred: Sequence[str] = SUB_MODELS) -> str:
        """The key in `arrays` of the sub-model `model`, or of the first of `preferred` that the file holds.

        Raises: WeightsError saying which sub-models there are.
        """
        if model is None:
            return next((name for name in preferred if name in self.arrays), next(iter(self.arrays)))
        if model not in self.arrays:
            held = ", ".join(self.arrays)
            found = f"expected one of {held}" if held else "holds one net without a sub-model's name"
            raise WeightsError(f"{self.path}: no sub-model {model!r}: {found}")
        return model


def read_weights(path: Path) -> WeightsFile:
    """A `.safetensors`, `.pdparams`, `.onnx` or `.npz` file, or a checkpoint's folder, under our names.

    Raises: WeightsError when there is no such file, when its suffix is none of these, when it is empty, cut,
        corrupted or hostile, or holds no arrays.
    """
    if path.is_dir():
        path = path / CHECKPOINT_FILE
    if path.suffix not in SUFFIXES:
        beside = [path.with_name(path.name + suffix) for suffix in SUFFIXES]
        hint = next((f"; did you mean {p.name}?" for p in beside if p.is_file()), "")
        raise WeightsError(f"{path}: expected a file {', '.join(SUFFIXES)} or a checkpoint's folder{hint}")
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    metadata: dict[str, str] = {}
    match path.suffix:
        case ".safetensors":
            stored, metadata = read_safetensors(path)
        case ".pdparams":
            stored = read_pdparams(path)
            metadata = read_card(path)
        case ".npz":
            stored = read_npz(path)
        case _:
            stored = read_onnx(path)
    bare = bare_backbone(stored)
    renamed = {name: name for name in stored} if bare is None else bare
    arrays: dict[str, Arrays] = {}
    for name, new_name in renamed.items():
        if name.endswith(BATCHES) or new_name is None:
            continue
        sub_model, _, rest = new_name.partition(".")
        if sub_model not in SUB_MODELS:
            sub_model, rest = "", new_name
        ours = to_ours(rest)
        if ours in arrays.setdefault(sub_model, {}):
            raise WeightsError(f"{path}: holds {ours} twice, the second time as {name}")
        arrays[sub_model][ours] = stored[name]
    if not arrays:
        raise WeightsError(f"{path}: holds no arrays")
    dropped = tuple(name for name, new_name in renamed.items() if new_name is None)
    return WeightsFile(path, path.suffix, arrays, metadata, dropped, is_bare_backbone=bare is not None)


def weights_digest(path: Path) -> str:
    """SHA-256 of a file of weights, or of the one in a checkpoint's folder. Raises: OSError where it is not there."""
    return file_digest(path / CHECKPOINT_FILE if path.is_dir() else path)


def load_into(
    module: nn.Module,
    arrays: Mapping[str, NDArray[np.float32]],
    what: str,
    may_be_new: Sequence[str] = (),
    may_be_left: Sequence[str] = (),
    keys: str = "",
) -> Coverage:
    """Copies every array into the parameter or running statistic of its name; all of them, or none.

    A `module` on the device `meta`, which takes no memory, is checked and left as it is.

    Args: arrays under our names, of one net. `what` names file and net in errors and tables. `may_be_new` are dotted
        prefixes (`head.thresh`) under which nothing need match: what does not keeps its values. `may_be_left` are
        names in `arrays` that the net may lack. `keys` is the group of the config's keys that say all this, e.g.
        `student`, for errors that name one.
    Raises: WeightsError in one line when a name is missing, unexpected or misshapen and not under `may_be_new`, with
        what prefix would have made names match; when a prefix names no part of the net; when a value is not finite.
    """
    state = {name: tensor for name, tensor in module.state_dict().items() if not name.endswith(BATCHES)}
    for prefix in may_be_new:
        if not any(is_under(name, (prefix,)) for name in state):
            parts = {".".join(name.split(".")[:n]) for name in state for n in (1, 2)}
            near = difflib.get_close_matches(prefix, parts, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise WeightsError(f"{what}: {prefix!r} may be new, but no part of the net has that name{hint}")
    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    found = {name: array.shape for name, array in arrays.items()}
    left = [name for name in may_be_left if name in found and name not in expected]
    coverage = compare(expected, found, what, may_be_new, left)
    if not coverage.whole:
        raise WeightsError(f"{what}: {coverage.faults.one_line()}{_hint(coverage.faults, keys)}")
    if not coverage.matched:
        raise WeightsError(f"{what}: nothing matched; {coverage.one_line()}")
    broken = [name for name in coverage.matched if not np.isfinite(arrays[name]).all()]
    if broken:
        raise WeightsError(f"{what}: {len(broken)} arrays hold values that are not finite: {shortened(broken)}")
    with torch.no_grad():
        for name in coverage.matched:
            state[name].copy_(torch.from_numpy(arrays[name]))
    return coverage


def load_file(
    module: nn.Module,
    file: WeightsFile,
    name: str,
    model: str | None = None,
    may_be_new: Sequence[str] = (),
    preferred: Sequence[str] = SUB_MODELS,
    keys: str = "",
) -> Coverage:
    """One sub-model of `file` into `module`, which `name` names in errors and tables.

    Args: model: which sub-model; absent: the first of `preferred` that the file holds, or its only net. keys: as in
        `load_into`.
    Raises: WeightsError as `load_into`; where another sub-model of the file would have fitted, it says so.
    """
    taken = file.pick(model, preferred)
    arrays = file.arrays[taken]
    what = f"{file.path}{f' ({taken})' if taken else ''} into {name}"
    # A classification net's squeeze-excite has no place in a student without: the reference leaves it out as well.
    spare = [n for n in arrays if ".mid_se." in n] if file.is_bare_backbone else []
    try:
        return load_into(module, arrays, what, may_be_new, spare, keys)
    except WeightsError as e:
        fitting = [other for other in file.arrays if other != taken and _fits(module, file.arrays[other], may_be_new)]
        if not fitting:
            raise
        by = f" ({keys}.model={fitting[0]})" if keys else ""
        raise WeightsError(f"{e}; the file's {' or '.join(fitting)} would have matched{by}") from e


def _fits(module: nn.Module, arrays: Arrays, may_be_new: Sequence[str]) -> bool:
    expected = {name: tuple(t.shape) for name, t in module.state_dict().items() if not name.endswith(BATCHES)}
    return compare(expected, {name: array.shape for name, array in arrays.items()}, "", may_be_new).whole


def _hint(faults: Coverage, keys: str) -> str:
    """What would have helped: a prefix that, taken away or put in front, makes names match; or leave to be new."""
    away = Counter(_before(name, faults.missing) for name in faults.unexpected)
    front = Counter(_before(name, faults.unexpected) for name in faults.missing)
    for counted, words in ((away, "without the prefix"), (front, "with the prefix")):
        for prefix, count in counted.most_common():
            if prefix:
                return f"; {count} would have matched {words} {prefix!r}"
    parts = sorted({".".join(name.split(".")[:2]) for name in faults.missing})
    if len(parts) <= 2 and not faults.unexpected and not faults.misshapen:
        by = f" ({keys}.may_be_new=[{','.join(parts)}])" if keys else ""
        return f"; to start {' and '.join(parts)} anew, say that it may be new{by}"
    return ""


def _before(name: str, shorter: Iterable[str]) -> str:
    """What stands in front when `name` ends with one of `shorter`; empty when it does not."""
    wanted = set(shorter)
    parts = name.split(".")
    for cut in range(1, len(parts)):
        if ".".join(parts[cut:]) in wanted:
            return ".".join(parts[:cut]) + "."
    return ""
