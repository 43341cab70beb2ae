"""A file of weights as an ONNX file that others run, with the settings by which their programs read it.

"The trained model is good, the exported one is bad" is nearly always a normalisation, a resize rule or a threshold that
did not travel. So these are in the file's metadata, and beside it in the words of a reader.
"""

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ocr_ray.data.labels import Sample
from ocr_ray.data.normalize import NormalizeConfig
from ocr_ray.errors import ConfigError, UserError, WeightsError
from ocr_ray.export.gate import Gate, hold_to
from ocr_ray.export.int8 import Quantised, quantise
from ocr_ray.export.readers import Reader, onnxruntime_reader, opencv_reader, rapidocr_readers
from ocr_ray.export.settings import SUFFIX as SETTINGS
from ocr_ray.export.settings import rapidocr_settings, write_settings
from ocr_ray.files import whole_file
from ocr_ray.model_card import ModelCard, Origin, load_detector
from ocr_ray.models.detector import Detector
from ocr_ray.models.onnx_detector import OnnxDetector
from ocr_ray.weights.onnx_out import to_onnx

if TYPE_CHECKING:
    from onnx import ModelProto

SUFFIX = ".onnx"
FAILED = ".failed.onnx"
HALF = NormalizeConfig((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""What RapidOCR 3 feeds where nobody tells it otherwise."""
Normalize = Literal["outside", "inside"]
For = Literal["rapidocr", "opencv"]


@dataclass(frozen=True)
class Int8:
    """A wish for 8-bit integers."""

    calibrate: tuple[Sample, ...]
    """Pictures that the ranges of activations come from."""
    most_lost: float = 0.01
    """Of hmean; one that loses more is not written."""

    def __post_init__(self) -> None:
        if not 0 <= self.most_lost <= 1:  # nor is a number that is none
            raise ConfigError(f"--most-lost: expected a number from 0 to 1, found {self.most_lost:g}")


@dataclass(frozen=True)
class Exported:
    """What `export` wrote."""

    path: Path
    """Of the file; where the gate was not passed, one that ends in `.failed.onnx`."""
    card: ModelCard
    """Of the file: its `normalize` is what pictures have to be fed by."""
    settings: Path | None
    """RapidOCR's keys for it; None where RapidOCR cannot read it."""
    notes: tuple[str, ...]
    """What a reader cannot be told, for people."""
    gate: Gate | None = None
    quantised: Quantised | None = None

    @property
    def passed(self) -> bool:
        """Whether its readers found what they should, as far as they were asked."""
        return self.gate is None or self.gate.passed

    def __str__(self) -> str:
        if not self.passed:
            told = f"{self.path}: readers find other things in it than PyTorch in its weights, so it got this name"
            wanted = self.path.with_name(self.path.name.removesuffix(FAILED) + SUFFIX)
            return f"{told}; {wanted} is still that of an earlier export" if wanted.exists() else told
        size = self.path.stat().st_size / 2**20
        fed = f"fed by mean {list(self.card.normalize.mean)}, std {list(self.card.normalize.std)}"
        settings = f"; settings for RapidOCR: {self.settings}" if self.settings is not None else ""
        return f"{self.path}  {size:.2f} MiB, {fed}{settings}"


class Refused(WeightsError):
    """A file that lost too much, and was not written."""

    def __init__(self, quantised: Quantised) -> None:
        super().__init__(
            f"int8 loses {quantised.lost:.4f} of hmean, at most {quantised.most_lost:g} is allowed: nothing was written"
        )
        self.quantised = quantised


def export(
    weights: Path,
    out: Path,
    model: str | None = None,
    normalize: Normalize = "outside",
    reader: For = "rapidocr",
    gate: Sequence[Sample] = (),
    int8: Int8 | None = None,
    origin: Origin | None = None,
) -> Exported:
    """Writes `out`, its card inside, and the reader's settings beside it, whole or not at all.

    Args: model is the sub-model of `weights`. normalize="inside": the graph takes pictures as RapidOCR 3 feeds them
        by default, (x / 255 - 0.5) / 0.5, and brings them itself to what the net was trained with. reader="opencv":
        the graph answers one picture by a bare map, as OpenCV's `TextDetectionModel_DB` wants it; "rapidocr" is for
        all that read PP-OCR's files. gate are labelled pictures on which the readers have to find what PyTorch finds;
        a file that fails lies at `OUT.failed.onnx`. int8: 8-bit integers, judged on the gate's pictures or, without
        them, on those that calibrate. origin replaces the one of `weights`.
    Raises: WeightsError for weights that cannot be read, another suffix than `.onnx`, or a graph that does not answer
        as PyTorch does; Refused (one of them) for integers that lose too much. DataError for a picture that cannot be
        read.
    """
    if out.suffix != SUFFIX:
        raise WeightsError(f"{out}: expected a file to write that ends in {SUFFIX}")
    if int8 is not None and reader == "opencv":
        raise WeightsError(f"{out}: int8 is for readers that onnxruntime runs, expected no int8 for opencv")
    for target in (out, out.with_suffix(FAILED), out.with_suffix(SETTINGS)):
        if target.is_dir():  # now, and not when the file beside it is written
            raise UserError(f"{target}: is a folder, expected a file to write")
    detector, own, _ = load_detector(weights, model)
    own = dataclasses.replace(own, origin=origin or own.origin)
    card = dataclasses.replace(own, normalize=HALF) if normalize == "inside" else own
    graph = to_onnx(detector, own.normalize, card.normalize, card.to_metadata(), one=reader == "opencv")
    quantised = None
    if int8 is not None:
        quantised = quantise(graph, card, int8.calibrate, gate or int8.calibrate, int8.most_lost)
        if quantised.refused:
            raise Refused(quantised)
        graph, card = quantised.graph, quantised.card
    held = _through_the_gate(detector, own, card, graph, reader, gate, int8 is not None) if gate else None
    passed = held is None or held.passed
    path = out if passed else out.with_suffix(FAILED)
    with whole_file(path) as aside:
        aside.write_bytes(graph.SerializeToString())
    if passed:
        out.with_suffix(FAILED).unlink(missing_ok=True)  # of an earlier call
    if not passed or reader == "opencv":
        if passed:
            out.with_suffix(SETTINGS).unlink(missing_ok=True)  # of the file that was there before
        return Exported(path, card, None, (), held, quantised)
    _, notes = rapidocr_settings(path, card)
    return Exported(path, card, write_settings(path, card), notes, held, quantised)


def _through_the_gate(
    detector: Detector,
    own: ModelCard,
    card: ModelCard,
    graph: "ModelProto",
    reader: For,
    samples: Sequence[Sample],
    int8: bool,
) -> Gate:
    """By every reader that is installed, from files as they are going to lie there.

    Integers give other numbers on purpose, and what they cost has been judged before: their readers are held to
    onnxruntime.
    """
    absent: tuple[str, ...] = ()
    readers: list[Reader] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "exported.onnx"
        path.write_bytes(graph.SerializeToString())
        if not int8:
            readers.append(onnxruntime_reader(path, card))
        if reader == "rapidocr":
            keys, notes = rapidocr_settings(path, card)
            found = rapidocr_readers(keys, same=not notes)
            if not found:
                absent = ("RapidOCR was not asked: pip install 'ocr-ray[gate]'",)
            readers += found
            if not int8:  # OpenCV has a file of its own, whose answer is a bare map
                bare = Path(folder) / "bare.onnx"
                one = to_onnx(detector, own.normalize, card.normalize, card.to_metadata(), one=True)
                bare.write_bytes(one.SerializeToString())
                readers.append(opencv_reader(bare, card))
        else:
            readers.append(opencv_reader(path, card))
        if int8:
            return hold_to("onnxruntime", OnnxDetector(path), card, readers, samples, absent)
        return hold_to("PyTorch", detector, own, readers, samples, absent)
