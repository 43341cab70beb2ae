"""A trained detector as one file: its weights, and all that is needed to use them as they were meant."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import torch

from ocr_ray.data.normalize import NormalizeConfig
from ocr_ray.data.resize import ResizeConfig
from ocr_ray.errors import ConfigError, WeightsError, in_one_line
from ocr_ray.models.detector import Detector, DetectorConfig
from ocr_ray.models.onnx_detector import OnnxDetector
from ocr_ray.postprocess import PostprocessConfig
from ocr_ray.typed import from_plain, to_plain
from ocr_ray.weights.architecture import outline, recognise
from ocr_ray.weights.card_beside import read_card as read_card_beside
from ocr_ray.weights.coverage import Coverage, is_under
from ocr_ray.weights.extract import sub_model_metadata, write_weights
from ocr_ray.weights.load import BATCHES, load_file, read_weights
from ocr_ray.weights.onnx_in import onnx_metadata
from ocr_ray.weights.safetensors import read_safetensors

C = TypeVar("C")
FORMAT = "ocr_ray detector 1"
DEPTH = 8
"""Levels of a card's part that may lie in one another; it has three."""
UNUSED_IN_EVALUATION = ("head.thresh",)
"""Only training looks at the threshold map; files that were exported for use lack its branch."""


@dataclass(frozen=True)
class Origin:
    """Where weights come from, as far as it is known."""

    hmean: float | None = None
    """On the validation set of the run that made them."""
    which: str | None = None
    """Of a pair: `Student` or `Student2`."""
    recipe: str | None = None
    run: str | None = None
    """Name of the source run."""
    epoch: int | None = None
    config_digest: str | None = None
    data_digest: str | None = None
    source: str | None = None
    """The file these weights were read from, where it held no card."""
    new_parts: tuple[str, ...] = ()
    """Prefixes of names that the source did not hold and that keep their random start, e.g. `head.thresh`."""
    settings: str | None = None
    """How `postprocess` was chosen, where that was after the training; `hmean` is not of these settings then."""
    quantised: str | None = None
    """To what numbers, and what that lost; `hmean` is that of the floats then."""
    version: str = field(default_factory=lambda: version("ocr-ray"))
    """Of this package, when the card was made."""
    run_id: str | None = None
    """MLflow's of that run, where it was known when the file was written."""


@dataclass(frozen=True)
class ModelCard:
    """What evaluation and prediction need to know beside the weights. Defaults are the reference's."""

    detector: DetectorConfig = field(default_factory=DetectorConfig)
    normalize: NormalizeConfig = field(default_factory=NormalizeConfig)
    resize: ResizeConfig = field(default_factory=ResizeConfig)
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)
    origin: Origin = field(default_factory=Origin)

    def to_metadata(self) -> dict[str, str]:
        """One JSON text for each part, and `format`, as safetensors keeps them."""
        parts = {f.name: json.dumps(to_plain(getattr(self, f.name))) for f in dataclasses.fields(self)}
        return {"format": FORMAT, **parts}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], source: str) -> "ModelCard":
        """The card that `to_metadata` wrote; parts that `metadata` lacks have their defaults.

        Raises: WeightsError naming `source` and the part that cannot be read.
        """
        return cls(
            detector=_part(DetectorConfig, metadata, "detector", source),
            normalize=_part(NormalizeConfig, metadata, "normalize", source),
            resize=_part(ResizeConfig, metadata, "resize", source),
            postprocess=_part(PostprocessConfig, metadata, "postprocess", source),
            origin=_part(Origin, metadata, "origin", source),
        )


def save_detector(path: Path, detector: Detector, card: ModelCard) -> None:
    """Writes weights and card to `path`, whole or not at all; `.pdparams` takes the weights alone.

    Raises: WeightsError for another suffix than `.safetensors` and `.pdparams`; UserError when the folder cannot be
        written to.
    """
    state = {name: tensor for name, tensor in detector.state_dict().items() if not name.endswith(BATCHES)}
    arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in state.items()}
    write_weights(path, {"": arrays}, card.to_metadata())


def copy_with_card(source: Path, card: ModelCard, out: Path, model: str | None = None) -> None:
    """The weights of `source`, or of its sub-model, bit for bit, with another card to `out`; whole or not at all.

    Raises: WeightsError as `read_weights`, and for another suffix than `.safetensors`; UserError when the folder cannot
        be written to.
    """
    check_keeps_card(out)
    file = read_weights(source)
    write_weights(out, {"": file.arrays[file.pick(model)]}, card.to_metadata())


def check_keeps_card(out: Path) -> None:
    """Whether a file of that name can hold a card. Raises: WeightsError for another suffix than `.safetensors`."""
    if out.suffix != ".safetensors":
        raise WeightsError(f"{out}: expected a file to write that ends in .safetensors, which holds settings")


def load_detector(
    path: Path, model: str | None = None, may_be_new: Sequence[str] = ()
) -> tuple[Detector, ModelCard, Coverage]:
    """A detector in eval mode on the CPU, out of any file that `read_weights` takes.

    A file without a card gets one: its architecture is read off its names and shapes, the rest has the reference's
    values. The branch `head.thresh` may be absent, since only training uses it; the card's origin and the coverage
    say so. The caller's random numbers are left where they were.

    Args: model: which sub-model (`Student`, `Student2`, `Teacher`); absent: the first of these that the file holds, or
        its only net; the coverage says which. may_be_new: further prefixes that the file need not hold.
    Raises: WeightsError when the file cannot be read, holds no detector that is known, or not the whole of it.
    """
    file = read_weights(path)
    taken = file.pick(model)
    source = f"{path} ({taken})" if taken else str(path)
    metadata = sub_model_metadata(file, taken)
    card = ModelCard.from_metadata(metadata, source)
    if "detector" not in metadata:
        card = dataclasses.replace(card, detector=recognise(file.arrays[taken], source))
    new = (*UNUSED_IN_EVALUATION, *may_be_new)
    # Whether the file holds what its card says, before a net of the card's size is made.
    load_file(outline(card.detector), file, "the detector", taken, new)
    with torch.random.fork_rng(devices=[]):
        detector = Detector(card.detector)
    coverage = load_file(detector, file, "the detector", taken, new)
    origin = card.origin
    if "origin" not in metadata:
        origin = dataclasses.replace(origin, source=source)
    if coverage.new:
        left = tuple(p for p in coverage.may_be_new if any(is_under(name, (p,)) for name in coverage.new))
        origin = dataclasses.replace(origin, new_parts=left)
    return detector.eval(), dataclasses.replace(card, origin=origin), coverage


def load_for_use(path: Path, model: str | None = None) -> tuple[Detector | OnnxDetector, ModelCard, Coverage | None]:
    """What evaluates and predicts: an ONNX file that was exported here runs in onnxruntime, as it is; any other file is
    loaded as `load_detector` does, which the coverage tells about.

    Raises: WeightsError as `load_detector` and `OnnxDetector`.
    """
    if path.suffix == ".onnx":
        metadata = onnx_metadata(path)
        if metadata.get("format") == FORMAT:
            if model is not None:
                raise WeightsError(f"{path}: no sub-model {model!r}: holds one net without a sub-model's name")
            return OnnxDetector(path), ModelCard.from_metadata(metadata, str(path)), None
    return load_detector(path, model)


def read_card(path: Path) -> ModelCard:
    """What a file says of itself, without its weights: `.safetensors` and `.onnx` hold a card, `.pdparams` may have one
    beside it, as `FILE.json`.

    Raises: WeightsError when the file cannot be read or has no card.
    """
    match path.suffix:
        case ".safetensors":
            metadata = read_safetensors(path)[1]
        case ".onnx":
            metadata = onnx_metadata(path)
        case ".pdparams":
            if not path.exists():
                raise WeightsError(f"{path}: no such file")
            metadata = read_card_beside(path)
        case _:
            raise WeightsError(f"{path}: expected a .safetensors, .onnx or .pdparams file")
    if "origin" not in metadata:
        raise WeightsError(f"{path}: does not say where it comes from; only files that ocr-ray wrote do")
    return ModelCard.from_metadata(metadata, str(path))


def _part(cls: type[C], metadata: Mapping[str, str], key: str, source: str) -> C:
    if key not in metadata:
        return cls()
    where = f"{source}: model card: {key}"
    try:
        plain = json.loads(metadata[key])
    except (ValueError, RecursionError) as e:  # of thousands of digits, or of brackets
        raise WeightsError(f"{where}: not JSON: {in_one_line(e)}") from e
    _refuse_strange(plain, where)
    try:
        return from_plain(cls, plain, where)
    except ConfigError as e:
        raise WeightsError(str(e)) from e


def _refuse_strange(plain: object, where: str, depth: int = 0) -> None:
    """A card is a stranger's: its texts are texts, and `${oc.env:NAME}` must not fetch what only this machine knows.

    Raises: WeightsError naming `where` for a text that OmegaConf would resolve, and for more levels than a card has.
    """
    if isinstance(plain, str) and "${" in plain:
        raise WeightsError(f"{where}: expected plain values, found {plain[:80]!r}, an interpolation; refused")
    if depth > DEPTH:
        raise WeightsError(f"{where}: expected at most {DEPTH} levels, one in another")
    inside = plain.values() if isinstance(plain, dict) else plain if isinstance(plain, list) else ()
    for value in inside:
        _refuse_strange(value, where, depth + 1)
