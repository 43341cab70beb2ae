"""One sub-model out of a file that holds several, and files from one format to another."""

from collections.abc import Mapping
from pathlib import Path

from ocr_ray.errors import WeightsError
from ocr_ray.weights.card_beside import write_card
from ocr_ray.weights.coverage import shortened
from ocr_ray.weights.keymap import to_paddle
from ocr_ray.weights.load import SUB_MODELS, Arrays, WeightsFile, read_weights
from ocr_ray.weights.pdparams import write_pdparams
from ocr_ray.weights.safetensors import write_safetensors

OUT_SUFFIXES = (".safetensors", ".pdparams")


def extract(source: Path, model: str, out: Path) -> str:
    """Writes the sub-model `model` of `source` by itself to `out`, without its prefix; whole or not at all.

    Metadata travels to safetensors: what is said of all nets, and what is said of this one (`Student.detector`).
    Returns: a line that says what was written.
    Raises: WeightsError when `source` cannot be read or has no such sub-model, or for another suffix than
        `.safetensors` and `.pdparams`.
    """
    _check_suffix(out)
    file = read_weights(source)
    arrays = file.arrays[file.pick(model)]
    write_weights(out, {"": arrays}, sub_model_metadata(file, model))
    return f"{out}: {model} of {source}, {_size(arrays)}"


def convert(source: Path, out: Path) -> str:
    """Writes all of `source` in the format that the suffix of `out` names, sub-models with their prefixes.

    To `.pdparams` the names become PaddleOCR's. Back and forth, every array comes out equal bit for bit.
    Returns: a line that says what was written.
    Raises: WeightsError when `source` cannot be read, or for another suffix than `.safetensors` and `.pdparams`.
    """
    _check_suffix(out)
    file = read_weights(source)
    write_weights(out, file.arrays, file.metadata)
    sizes = [f"{name}: {_size(arrays)}" if name else _size(arrays) for name, arrays in file.arrays.items()]
    if file.dropped:
        sizes.append(f"left out {shortened(file.dropped)}")
    return f"{out}: {'; '.join(sizes)}"


def write_weights(out: Path, arrays: Mapping[str, Arrays], metadata: Mapping[str, str]) -> None:
    """Writes sub-models under our names to `.safetensors`, or under PaddleOCR's to `.pdparams`.

    The latter has no place for metadata; where there are any, they lie beside it as `OUT.json`.

    Raises: WeightsError for another suffix; UserError when the folder cannot be written to.
    """
    _check_suffix(out)
    flat = {
        (f"{model}." if model else "") + name: (name, array)
        for model, held in arrays.items()
        for name, array in held.items()
    }
    if out.suffix == ".safetensors":
        write_safetensors(out, {name: array for name, (_, array) in flat.items()}, metadata)
        return
    write_pdparams(out, {name.removesuffix(ours) + to_paddle(ours): array for name, (ours, array) in flat.items()})
    write_card(out, metadata)


def sub_model_metadata(file: WeightsFile, model: str) -> dict[str, str]:
    """What `file` says of all its nets, and of `model`; what it says of the others is left out."""
    shared = {key: text for key, text in file.metadata.items() if key.split(".")[0] not in SUB_MODELS}
    own = {key.removeprefix(f"{model}."): text for key, text in file.metadata.items() if key.startswith(f"{model}.")}
    return shared | own


def _check_suffix(out: Path) -> None:
    if out.suffix not in OUT_SUFFIXES:
        raise WeightsError(f"{out}: expected a file to write that ends in {' or '.join(OUT_SUFFIXES)}")


def _size(arrays: Arrays) -> str:
    return f"{len(arrays)} arrays, {sum(array.size for array in arrays.values()):,} numbers"
