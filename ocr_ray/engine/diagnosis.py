"""Why an evaluation ended at hmean 0, in one line."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocr_ray.metrics import MIN_IOU, MatchCounts
from ocr_ray.postprocess import PostprocessConfig

UNTRAINED_MEAN = 0.3  # text kernels cover a few hundredths of a picture; nets with random weights start near 0.5
FLAT_SPREAD = 0.02


@dataclass(frozen=True)
class MapStatistics:
    """What the probability maps of an evaluation look like as a whole."""

    pixels: int = 0
    total: float = 0.0
    lowest: float = 1.0
    highest: float = 0.0
    not_finite: int = 0

    @classmethod
    def of(cls, probability: NDArray[np.float32]) -> "MapStatistics":
        """Of one map `(H, W)`; pixels that are not finite enter only their count."""
        total = float(probability.sum(dtype=np.float64))
        if np.isfinite(total):
            return cls(probability.size, total, float(probability.min()), float(probability.max()))
        finite = probability[np.isfinite(probability)]
        some = cls.of(finite) if finite.size else cls()
        return some + cls(not_finite=probability.size - finite.size)

    def __add__(self, other: "MapStatistics") -> "MapStatistics":
        return MapStatistics(
            self.pixels + other.pixels,
            self.total + other.total,
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            self.not_finite + other.not_finite,
        )

    @property
    def mean(self) -> float:
        """Over the finite pixels; 0 where there is none."""
        return self.total / self.pixels if self.pixels else 0.0


def diagnose(counts: MatchCounts, found: int, maps: MapStatistics, regions: int, cfg: PostprocessConfig) -> str:
    """The likeliest reason for no match at all.

    Args: `counts` as `metrics.match` gives them; `found` is the number of boxes before ignored ones were left out;
        `regions` the number of labelled ones, ignored or not.
    """
    if maps.not_finite:
        share = maps.not_finite / (maps.not_finite + maps.pixels)
        return f"the net's output is not finite in {share:.0%} of the pixels: broken weights, or training diverged"
    if not regions:
        return "no text region is labelled in these pictures"
    if not counts.ground_truth:
        return f"all {regions} labelled regions are ignored (### or *) or cross themselves: none is left to be found"
    if maps.mean > UNTRAINED_MEAN or maps.highest - maps.lowest < FLAT_SPREAD:
        return (
            f"the net sees text with probability {maps.mean:.2f} on average, from {maps.lowest:.2f} to "
            f"{maps.highest:.2f}, as one whose weights were not loaded or not trained"
        )
    if not found and maps.highest <= cfg.thresh:
        return f"no box found: the highest probability seen is {maps.highest:.2f}, thresh is {cfg.thresh:g}"
    if not found:
        return (
            f"no box found: probabilities reach {maps.highest:.2f}, but no kernel of at least 3 pixels has a mean of "
            f"box_thresh {cfg.box_thresh:g}"
        )
    if not counts.detected:
        return f"all {found} boxes found lie in ignored regions"
    if not counts.best_iou:
        return f"{counts.detected} boxes found, but none touches a labelled region: do these labels fit these pictures?"
    return (
        f"{counts.detected} boxes found, but none overlaps a labelled region enough: the best IoU is "
        f"{counts.best_iou:.2f}, a match needs more than {MIN_IOU:g}"
    )
