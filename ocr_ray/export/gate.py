"""Whether an exported file finds what its weights find: by programs that are going to read it, on labelled pictures.

A program with the file's settings has to come to PyTorch's hmean. OpenCV, which takes the map apart by rules of its
own, has to see PyTorch's map; what its rules cost, and what a program's own settings cost, is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.table import Table

from ocr_ray.data.images import read_image
from ocr_ray.data.labels import Sample
from ocr_ray.data.resize import resize_for_test
from ocr_ray.engine.evaluate import EvalConfig, evaluate, shrink_maps
from ocr_ray.export.readers import Reader
from ocr_ray.metrics import MatchCounts, Score, match
from ocr_ray.model_card import ModelCard
from ocr_ray.models.detector import Detector
from ocr_ray.models.onnx_detector import OnnxDetector

MOST_OFF = 0.001
"""Of hmean, that a reader with the same settings may differ from PyTorch."""
MAP_OFF = 0.001
"""Of a probability, that a reader with rules of its own may differ from PyTorch anywhere."""


@dataclass(frozen=True)
class Reading:
    """What one reader found."""

    reader: Reader
    score: Score
    difference: float
    """Of its hmean to the expected one."""
    map_off: float | None = None
    """The largest difference of its map to the expected one's, over all pictures; None where it is held to hmean."""

    @property
    def fails(self) -> bool:
        """Whether it should have found the same, or seen it, and did not."""
        if self.map_off is not None:
            return not self.map_off <= MAP_OFF
        return self.reader.same and abs(self.difference) > MOST_OFF

    @property
    def verdict(self) -> str:
        """For the table."""
        if self.map_off is not None:
            return f"its map {'differs' if self.fails else 'is the same'}, to {self.map_off:.0e}"
        return "differs" if self.fails else "" if self.reader.same else "not held to it"


@dataclass(frozen=True)
class Gate:
    """What an exported file should find on labelled pictures, and what each of its readers does."""

    expected: Score
    by: str
    """What found the expected: `PyTorch`, or for a quantised file onnxruntime."""
    readings: tuple[Reading, ...]
    images: int
    absent: tuple[str, ...] = ()
    """What could not be looked at, and how to: readers that are not installed, pictures without text."""

    @property
    def passed(self) -> bool:
        """Whether all readers with the file's settings found what was expected."""
        return not any(reading.fails for reading in self.readings)

    def table(self) -> Table:
        """A row for what was expected and for each reader, for the terminal."""
        title = f"the exported file by its readers, {self.images} pictures"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for head in ("reader", "settings", "hmean", "precision", "recall", "difference", ""):
            table.add_column(head, justify="left" if head in ("reader", "settings", "") else "right")
        table.add_row(self.by, "the file's", *_figures(self.expected), "", "")
        for reading in self.readings:
            row = (reading.reader.name, reading.reader.settings, *_figures(reading.score))
            table.add_row(*row, f"{reading.difference:+.4f}", reading.verdict)
        return table


def hold_to(
    by: str,
    detector: Detector | OnnxDetector,
    card: ModelCard,
    readers: Sequence[Reader],
    samples: Sequence[Sample],
    absent: tuple[str, ...],
) -> Gate:
    """The detector by its card, and then each reader, over all pictures.

    Args: by names the detector; absent are readers that could not be asked.
    Raises: DataError for a picture that cannot be read.
    """
    cfg = EvalConfig(resize=card.resize, postprocess=card.postprocess)
    expected = evaluate(detector, samples, card.normalize, cfg, torch.device("cpu")).score
    counts = [MatchCounts()] * len(readers)
    off = [None if reader.map_of is None else 0.0 for reader in readers]
    for sample in samples:
        image = read_image(sample.image)
        for i, reader in enumerate(readers):
            counts[i] += match(sample.polygons, sample.ignore, reader.read(image))
            if reader.map_of is not None:
                resized, _ = resize_for_test(image, card.resize)
                seen = shrink_maps(detector, [resized], card.normalize, torch.device("cpu"))[0]
                off[i] = float(np.maximum(off[i] or 0.0, np.abs(reader.map_of(image) - seen).max()))
    scores = [Score.from_counts(found) for found in counts]
    readings = [Reading(r, s, s.hmean - expected.hmean, o) for r, s, o in zip(readers, scores, off, strict=True)]
    if not expected.ground_truth:
        absent = (*absent, "no picture has a legible region, so nothing could be compared")
    return Gate(expected, by, tuple(readings), len(samples), absent)


def _figures(score: Score) -> tuple[str, str, str]:
    return f"{score.hmean:.4f}", f"{score.precision:.4f}", f"{score.recall:.4f}"
