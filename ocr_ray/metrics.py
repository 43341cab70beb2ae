"""Precision, recall and hmean of detected polygons, as ICDAR counts them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ocr_ray.geometry.iou import are_valid, iou, share_of_first, to_shapes

MIN_IOU = 0.5  # a match lies above it
MAX_IGNORED_SHARE = 0.5  # a detection of which more lies in one ignored region is itself ignored


@dataclass(frozen=True)
class MatchCounts:
    """What one picture, or a sum of them, gives: ignored regions and ignored detections are in none of the counts."""

    ground_truth: int = 0
    detected: int = 0
    matched: int = 0
    best_iou: float = 0.0
    """The largest overlap of any detection with any region that counts; says how far off unmatched ones are."""

    def __add__(self, other: "MatchCounts") -> "MatchCounts":
        return MatchCounts(
            self.ground_truth + other.ground_truth,
            self.detected + other.detected,
            self.matched + other.matched,
            max(self.best_iou, other.best_iou),
        )


@dataclass(frozen=True)
class Score:
    """Precision, recall and their harmonic mean over a set of pictures, with the counts that they come from."""

    precision: float
    recall: float
    hmean: float
    matched: int
    ground_truth: int
    detected: int

    @classmethod
    def from_counts(cls, counts: MatchCounts) -> "Score":
        """Each figure is 0 where its denominator is 0. Source: PaddleOCR, `DetMetric`."""
        precision = counts.matched / counts.detected if counts.detected else 0.0
        recall = counts.matched / counts.ground_truth if counts.ground_truth else 0.0
        total = precision + recall
        hmean = 2 * precision * recall / total if total else 0.0
        return cls(precision, recall, hmean, counts.matched, counts.ground_truth, counts.detected)


@dataclass(frozen=True, eq=False)
class Overlaps:
    """How the detections of one picture lie over its labelled regions. R regions and D detections count."""

    regions: NDArray[np.intp]
    """`(R,)`: which of the given regions these are."""
    detections: NDArray[np.intp]
    """`(D,)`: likewise."""
    iou: NDArray[np.float64]
    """`(R, D)`."""

    def pairs(self, among: NDArray[np.bool_] | None = None) -> list[tuple[int, int]]:
        """Row and column in `iou` of each match; `among` `(D,)` leaves out detections where it is false."""
        hits = self.iou > MIN_IOU
        free = np.ones(len(self.detections), bool) if among is None else among.copy()
        pairs = []
        for row in np.flatnonzero(hits.any(axis=1)).tolist():
            candidates = np.flatnonzero(hits[row] & free)
            if candidates.size:
                free[candidates[0]] = False
                pairs.append((row, int(candidates[0])))
        return pairs

    def counts(self, among: NDArray[np.bool_] | None = None) -> MatchCounts:
        """What the picture gives; `among` as in `pairs`."""
        seen = self.iou if among is None else self.iou[:, among]
        regions, detected = seen.shape
        return MatchCounts(regions, detected, len(self.pairs(among)), float(seen.max(initial=0.0)))


def overlaps(
    ground_truth: Sequence[ArrayLike], ignore: Sequence[bool] | NDArray[np.bool_], detections: Sequence[ArrayLike]
) -> Overlaps:
    """Which regions and detections of a picture count, and how they overlap. Args and Raises: as `match`."""
    if len(ignore) != len(ground_truth):
        raise ValueError(f"match: {len(ground_truth)} regions, but {len(ignore)} entries of ignore")
    regions, found = to_shapes(ground_truth), to_shapes(detections)
    is_region = are_valid(regions)
    ignored = np.asarray(ignore, bool)
    counting = np.flatnonzero(are_valid(found))
    dropped = share_of_first(found[counting], regions[is_region & ignored]) > MAX_IGNORED_SHARE
    counting = counting[~dropped.any(axis=1)]
    wanted = np.flatnonzero(is_region & ~ignored)
    return Overlaps(wanted, counting, iou(regions[wanted], found[counting]))


def match(
    ground_truth: Sequence[ArrayLike], ignore: Sequence[bool] | NDArray[np.bool_], detections: Sequence[ArrayLike]
) -> MatchCounts:
    """Matches the detections of one picture with its labelled regions, one to one.

    A region and a detection match when their IoU lies above 0.5. Regions are taken in their order and each gets the
    first detection that is still free, not the best one. Polygons that cross themselves or have no area are left
    out. A detection of which more than half lies in one ignored region counts neither as hit nor as miss.

    Args: ground_truth and detections are polygons `(K, 2)` in pixels of the picture; ignore has one entry per region.
    Raises: ValueError when `ignore` is of another length than `ground_truth`.
    Source: ICDAR 2015 robust reading competition, task 4.1; PaddleOCR, `DetectionIoUEvaluator`.
    """
    return overlaps(ground_truth, ignore, detections).counts()
