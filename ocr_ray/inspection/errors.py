"""Why a region was not found, and why a detection is wrong: one kind for each, so that they add up to the metric's."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ocr_ray.geometry.iou import are_valid, share_of_first, to_shapes
from ocr_ray.metrics import overlaps

Kind = Literal["missed", "false", "split", "merged", "loose"]
Fate = Literal["matched", "missed", "false", "split", "merged", "loose"]
KINDS: tuple[Kind, ...] = ("missed", "false", "split", "merged", "loose")
MEANING: dict[Kind, str] = {
    "missed": "a region that no detection of its own lies on",
    "false": "a detection that lies on no region of its own",
    "split": "one region found as several",
    "merged": "several regions found as one",
    "loose": "region and detection overlap, but IoU is at most 0.5",
}
MOSTLY = 0.5  # more than this share of one lies in the other
MIN_LOOSE_IOU = 0.1  # below it they are neighbours that touch, not a text and its box


@dataclass(frozen=True)
class Errors:
    """What became of the regions and detections of one picture, in the order in which they were given.

    None for those that the metric leaves out: ignored ones, and polygons without an inside.
    """

    regions: tuple[Fate | None, ...]
    """`matched`, or why not: `missed`, `split`, `merged`, `loose`."""
    detections: tuple[Fate | None, ...]
    """`matched`, or what is wrong: `false`, `split`, `merged`, `loose`."""

    @property
    def count(self) -> int:
        """Regions not found and detections that are wrong: (ground truth - matched) + (detected - matched)."""
        return sum(fate is not None and fate != "matched" for fate in (*self.regions, *self.detections))

    def in_words(self) -> str:
        """E.g. `3 missed, 1 region split`: what is wrong with the picture, for a person."""
        regions, detections = Counter(self.regions), Counter(self.detections)
        said = []
        for kind in KINDS:
            if kind in ("missed", "false"):
                count = regions[kind] + detections[kind]
                said += [f"{count} {kind}"] if count else []
            elif regions[kind] or detections[kind]:
                # A region that one of several pieces has found leaves wrong pieces alone, and so on.
                count, what = (regions[kind], "region") if regions[kind] else (detections[kind], "detection")
                said.append(f"{count} {what}{'s' if count > 1 else ''} {kind}")
        return ", ".join(said) or "no error"


def find_errors(
    ground_truth: Sequence[ArrayLike], ignore: Sequence[bool] | NDArray[np.bool_], detections: Sequence[ArrayLike]
) -> Errors:
    """The kind of each error in one picture. What is `matched` is what `metrics.match` counts as that.

    Of the rest, the first that holds:
    - `split`: more than half of each of two or more detections lies in one region. One of them may have matched it.
    - `merged`: one detection holds more than half of each of two or more regions; ignored ones are among them, for a
      box over a word and its unreadable neighbour is too large for the same reason. It may have matched one of them.
    - `loose`: a region without a match and a detection without one overlap by an IoU of 0.1 to 0.5, or more than half
      of one lies in the other.
    - `missed` a region, `false` a detection.

    Args and Raises: as `metrics.match`.
    Source: the limits of 0.1 and 0.5 as in Bolya et al. 2020, "TIDE", arXiv 2008.08115.
    """
    found = overlaps(ground_truth, ignore, detections)
    region_fates: list[Fate | None] = [None] * len(ground_truth)
    detection_fates: list[Fate | None] = [None] * len(detections)
    pairs = found.pairs()
    matched_rows, matched_columns = {row for row, _ in pairs}, {column for _, column in pairs}
    shapes = to_shapes(ground_truth)
    boxes = to_shapes(detections)[found.detections]
    regions = shapes[found.regions]
    ignored = shapes[np.flatnonzero(are_valid(shapes) & np.asarray(ignore, bool))]
    within = share_of_first(boxes, regions).T > MOSTLY  # (R, D): most of the detection lies in the region
    covered = share_of_first(regions, boxes) > MOSTLY  # (R, D): the detection holds most of the region
    covers = covered.sum(axis=0) + (share_of_first(ignored, boxes) > MOSTLY).sum(axis=0)
    pieces = within & (within.sum(axis=1) >= 2)[:, None]
    unions = covered & (covers >= 2)
    free = np.ones_like(within)
    free[sorted(matched_rows)] = False
    free[:, sorted(matched_columns)] = False
    near = free & ((found.iou > MIN_LOOSE_IOU) | within | covered)
    for row, index in enumerate(found.regions.tolist()):
        region_fates[index] = _fate(row in matched_rows, pieces[row], unions[row], near[row], "missed")
    for column, index in enumerate(found.detections.tolist()):
        is_matched = column in matched_columns
        detection_fates[index] = _fate(is_matched, pieces[:, column], unions[:, column], near[:, column], "false")
    return Errors(tuple(region_fates), tuple(detection_fates))


def _fate(
    matched: bool,
    pieces: NDArray[np.bool_],
    unions: NDArray[np.bool_],
    near: NDArray[np.bool_],
    alone: Literal["missed", "false"],
) -> Fate:
    if matched:
        return "matched"
    return "split" if pieces.any() else "merged" if unions.any() else "loose" if near.any() else alone
