"""An exported graph in 8-bit integers, and what that is worth: size, time and hmean beside those of 32-bit floats."""

import contextlib
import dataclasses
import io
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from ocr_ray.data.images import read_image
from ocr_ray.data.labels import Sample
from ocr_ray.data.normalize import normalize
from ocr_ray.data.resize import resize_for_test
from ocr_ray.engine.evaluate import EvalConfig, evaluate
from ocr_ray.errors import WeightsError
from ocr_ray.model_card import ModelCard
from ocr_ray.models.onnx_detector import OnnxDetector
from ocr_ray.weights.onnx_out import INPUT

if TYPE_CHECKING:
    from onnx import ModelProto

PERCENTILE = 99.999
MOST_CALIBRATED = 16
"""Pictures that the ranges of activations are read from, spread evenly over the labelled ones."""
TIMED = 8
"""Pictures whose forward pass is timed, each once, after one that is not."""


@dataclass(frozen=True)
class Measured:
    """One of the two files."""

    size: int
    """In bytes."""
    seconds: float
    """Of one forward pass by one thread: the median over pictures."""
    hmean: float


@dataclass(frozen=True)
class Quantised:
    """A graph and what it is worth."""

    graph: "ModelProto"
    card: ModelCard
    """Of its file."""
    floats: Measured
    integers: Measured
    calibrated: int
    """Pictures that the ranges come from."""
    images: int
    """Pictures that both were evaluated on."""
    most_lost: float
    seen: bool
    """Whether those are the pictures that calibrated."""

    @property
    def lost(self) -> float:
        """Of hmean."""
        return self.floats.hmean - self.integers.hmean

    @property
    def refused(self) -> bool:
        """Whether it lost more than was allowed."""
        return self.lost > self.most_lost

    def table(self) -> Table:
        """For the terminal."""
        title = f"int8 (ranges from {self.calibrated} pictures) beside fp32, {self.images} pictures"
        if self.seen:
            title += ", those it was calibrated by (--gate names others)"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for head in ("", "MiB", "ms a picture, one thread", "hmean"):
            table.add_column(head, justify="right" if head else "left")
        for name, m in (("fp32", self.floats), ("int8", self.integers)):
            table.add_row(name, f"{m.size / 2**20:.2f}", f"{m.seconds * 1000:.0f}", f"{m.hmean:.4f}")
        a, b = self.integers, self.floats
        table.add_row("ratio", f"{a.size / b.size:.2f}", f"{a.seconds / b.seconds:.2f}", f"{-self.lost:+.4f}")
        return table


def quantise(
    graph: "ModelProto", card: ModelCard, calibrate: Sequence[Sample], judge: Sequence[Sample], most_lost: float
) -> Quantised:
    """A graph in int8 by static quantisation: QDQ nodes, weights by channel, activations by their range on `calibrate`.

    The range holds all but a hundred-thousandth of an activation's values at either end: by the outermost ones the
    released student lost 0.031 of hmean on 40 photographs, by this 0.003.

    Args: card is that of the graph's file. judge are the pictures that both graphs are evaluated on.
    Raises: DataError for a picture that cannot be read, WeightsError when onnxruntime cannot quantise the graph.
    """
    import onnx

    step = max(1, len(calibrate) // MOST_CALIBRATED)
    chosen = calibrate[::step][:MOST_CALIBRATED]
    with tempfile.TemporaryDirectory() as folder:
        floats, integers = Path(folder) / "floats.onnx", Path(folder) / "integers.onnx"
        floats.write_bytes(graph.SerializeToString())
        try:
            with _quiet():
                _quantise_file(floats, integers, _Pictures(chosen, card))
        except (RuntimeError, ValueError) as e:
            raise WeightsError(f"int8: onnxruntime cannot quantise the graph: {' '.join(str(e).split())[:200]}") from e
        found = onnx.load(str(integers))
        found.producer_name = graph.producer_name
        hmeans = [_hmean(path, card, judge) for path in (floats, integers)]
        seconds = _seconds((floats, integers), card, judge)
        size = floats.stat().st_size
    told = f"int8, hmean {hmeans[1] - hmeans[0]:+.4f} on {len(judge)} pictures"
    card = dataclasses.replace(card, origin=dataclasses.replace(card.origin, quantised=told))
    onnx.helper.set_model_props(found, {e.key: e.value for e in graph.metadata_props} | card.to_metadata())
    before, after = Measured(size, seconds[0], hmeans[0]), Measured(found.ByteSize(), seconds[1], hmeans[1])
    return Quantised(found, card, before, after, len(chosen), len(judge), most_lost, judge is calibrate)


def _quantise_file(floats: Path, integers: Path, pictures: "_Pictures") -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = floats.with_name("prepared.onnx")
    quant_pre_process(str(floats), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(integers),
        pictures,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.Percentile,
        # A picture at a time, whatever the second one's name says: else the activations of all lie in memory.
        extra_options={"CalibPercentile": PERCENTILE, "CalibStridedMinMax": 1},
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """It tells its progress by print, and advises by the root logger what has been done already."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.root.setLevel(level)


def _hmean(path: Path, card: ModelCard, judge: Sequence[Sample]) -> float:
    cfg = EvalConfig(resize=card.resize, postprocess=card.postprocess)
    return evaluate(OnnxDetector(path), judge, card.normalize, cfg, torch.device("cpu")).score.hmean


def _seconds(paths: Sequence[Path], card: ModelCard, judge: Sequence[Sample]) -> list[float]:
    """Of a forward pass of each file, which take turns at each picture: a busy machine is busy for both."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        detectors = [OnnxDetector(path) for path in paths]
    finally:
        torch.set_num_threads(threads)
    seconds: list[list[float]] = []
    for sample in judge[: TIMED + 1]:
        images = torch.from_numpy(_fed(sample, card))
        row = []
        for detector in detectors:
            start = time.perf_counter()
            detector.shrink_map(images)
            row.append(time.perf_counter() - start)
        seconds.append(row)
    return [float(np.median(own[1:] or own)) for own in zip(*seconds, strict=True)]


def _fed(sample: Sample, card: ModelCard) -> NDArray[np.float32]:
    resized, _ = resize_for_test(read_image(sample.image), card.resize, str(sample.image))
    pictures = torch.from_numpy(resized).permute(2, 0, 1)[None]
    return np.ascontiguousarray(normalize(pictures, card.normalize).numpy())


class _Pictures:
    """As onnxruntime asks for them, which does not look at the type: of a range, one after the other."""

    def __init__(self, samples: Sequence[Sample], card: ModelCard) -> None:
        self._samples, self._card = samples, card
        self._waiting = iter(samples)

    def __len__(self) -> int:
        return len(self._samples)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Those that come next."""
        self._waiting = iter(self._samples[start_index:end_index])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """One picture, None at the end."""
        sample = next(self._waiting, None)
        return None if sample is None else {INPUT: _fed(sample, self._card)}
