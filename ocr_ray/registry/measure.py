"""What detectors find on labelled pictures, by slice, and how long they take for it, all on the same pictures."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ocr_ray.data.images import read_image
from ocr_ray.data.labels import Sample
from ocr_ray.errors import DataError
from ocr_ray.evidence import Counts, hmean_of
from ocr_ray.metrics import MatchCounts, match
from ocr_ray.registry.reader import OnnxReader
from ocr_ray.registry.slices import SLICES, Slice, regions_in


@dataclass(frozen=True, eq=False)
class Measured:
    """One detector's. Counts are `(N, 3)` as `evidence` has them: matched, labelled and detected of each picture."""

    counts: Counts
    by_slice: Mapping[Slice, Counts]
    """Over the pictures that have regions of the slice: these alone count, and detections that lie in none of the
    others."""
    milliseconds: tuple[float, ...]
    """For each picture, from its pixels to its regions, on one thread."""

    @property
    def hmean(self) -> float:
        """On all pictures."""
        return float(hmean_of(self.counts))

    @property
    def latency_ms(self) -> float:
        """Median over the pictures."""
        return float(np.median(self.milliseconds))


def measure(
    readers: Sequence[OnnxReader], samples: Sequence[Sample], on_picture: Callable[[], None] = lambda: None
) -> tuple[list[Measured], tuple[str, ...]]:
    """Each reader, made with one thread, over all pictures, in turns, so that what else the machine does meets all.

    Returns: what each measured, and why pictures that could not be read are left out.
    Raises: DataError when no picture could be read.
    """
    counts: list[list[MatchCounts]] = [[] for _ in readers]
    by_slice: list[dict[Slice, list[MatchCounts]]] = [{what: [] for what in SLICES} for _ in readers]
    took: list[list[float]] = [[] for _ in readers]
    unreadable = []
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for number, sample in enumerate(samples):
            on_picture()
            try:
                image = read_image(sample.image)
                if not counts[0]:  # the first one pays for what is only made once
                    for reader in readers:
                        reader.read(image, str(sample.image))
            except DataError as e:
                unreadable.append(str(e))
                continue
            slices = {what: regions_in(what, sample, image) for what in SLICES}
            for i in (*range(number % len(readers), len(readers)), *range(number % len(readers))):
                begun = time.perf_counter()
                polygons = [found.polygon for found in readers[i].read(image, str(sample.image))]
                took[i].append(1000 * (time.perf_counter() - begun))
                counts[i].append(match(sample.polygons, sample.ignore, polygons))
                for what, inside in slices.items():
                    if (inside & ~sample.ignore).any():
                        by_slice[i][what].append(match(sample.polygons, sample.ignore | ~inside, polygons))
    finally:
        cv2.setNumThreads(threads)
    if not counts[0]:
        raise DataError(f"evaluation: none of {len(samples)} pictures could be read, the first: {unreadable[0]}")
    measured = [
        Measured(_array(counts[i]), {what: _array(found) for what, found in by_slice[i].items()}, tuple(took[i]))
        for i in range(len(readers))
    ]
    return measured, tuple(unreadable)


def _array(counts: Sequence[MatchCounts]) -> Counts:
    return np.array([(c.matched, c.ground_truth, c.detected) for c in counts], np.int64).reshape(-1, 3)
