"""What sets regions apart that may be hard to find: size, angle, contrast, and how many there are in the picture."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ocr_ray.data.check_report import SIDE_BINS_PX
from ocr_ray.data.images import Image
from ocr_ray.inspection.errors import Errors, Fate

SQUARE = 1.25
"""Up to this ratio of its sides a region's longer side says nothing about the direction of its text."""


@dataclass(frozen=True)
class RegionTraits:
    """One labelled region that counts, and what became of it."""

    fate: Fate
    side_px: float
    """Shorter side of the smallest rectangle around it, in pixels of the picture as on disk."""
    degrees: float
    """From the horizontal to its longer side, 0 to 90; of one that is nearly square, to the nearer axis."""
    contrast: float
    """Grey levels, 0 to 255, between the darkest and the brightest twentieth of its pixels."""
    density: int
    """Regions that count in its picture."""


@dataclass(frozen=True)
class Trait:
    """A property by which regions are sorted into bins; the last bin has no upper end."""

    name: str
    """As a column's head, with its unit."""
    of: Callable[[RegionTraits], float]
    ends: tuple[int, ...]
    """Lower ends of the bins, the first is that of all."""
    is_whole: bool = False
    """Whether the values are whole numbers, and a bin's name is that of its first and last."""

    def bins(self) -> list[str]:
        """Their names: from the lower end, which is in the bin, to the upper one, which is not unless `is_whole`."""
        bounded = [f"{low} to {high - self.is_whole}" for low, high in pairwise(self.ends)]
        return [*bounded, f"{self.ends[-1]} or more"]

    def bin_of(self, region: RegionTraits) -> int:
        """Which one, from 0."""
        return max(int(np.searchsorted(self.ends, self.of(region), side="right")) - 1, 0)


TRAITS = (
    Trait("shorter side, px", lambda region: region.side_px, SIDE_BINS_PX),
    Trait("angle, degrees", lambda region: region.degrees, (0, 5, 15, 30, 60)),
    Trait("contrast, grey levels", lambda region: region.contrast, (0, 32, 64, 96, 128)),
    Trait("regions in the picture", lambda region: region.density, (1, 3, 6, 11, 21), is_whole=True),
)


def traits_of(image: Image, polygons: Sequence[ArrayLike], errors: Errors) -> list[RegionTraits]:
    """Of the regions of one picture that count; polygons `(K, 2)` in its pixels."""
    counting = [(polygon, fate) for polygon, fate in zip(polygons, errors.regions, strict=True) if fate is not None]
    if not counting:
        return []
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
    return [
        RegionTraits(fate, *_side_and_angle(polygon), contrast_inside(grey, polygon), len(counting))
        for polygon, fate in counting
    ]


def by_bin(trait: Trait, regions: Sequence[RegionTraits]) -> list[tuple[str, Counter[Fate]]]:
    """How often each fate befell the regions of each bin; empty bins are left out."""
    counts: list[Counter[Fate]] = [Counter() for _ in trait.ends]
    for region in regions:
        counts[trait.bin_of(region)][region.fate] += 1
    return [(name, count) for name, count in zip(trait.bins(), counts, strict=True) if count]


def contrast_inside(grey: NDArray[np.uint8], polygon: ArrayLike) -> float:
    """See `RegionTraits.contrast`; 0 for a polygon that lies outside the picture `(H, W)`."""
    height, width = grey.shape
    corners = np.rint(np.asarray(polygon, np.float64)).astype(np.int64)
    (x0, y0), (x1, y1) = np.maximum(corners.min(axis=0), 0), np.minimum(corners.max(axis=0) + 1, (width, height))
    if x0 >= x1 or y0 >= y1:
        return 0.0
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillPoly(mask, [(corners - (x0, y0)).astype(np.int32)], 1)
    inside = grey[y0:y1, x0:x1][mask > 0]
    if not inside.size:
        return 0.0
    dark, bright = np.percentile(inside, [5, 95])
    return float(bright - dark)


def _side_and_angle(polygon: ArrayLike) -> tuple[float, float]:
    corners = cv2.boxPoints(cv2.minAreaRect(np.asarray(polygon, np.float32)))
    one, other = corners[1] - corners[0], corners[2] - corners[1]
    longer, shorter = (one, other) if np.hypot(*one) >= np.hypot(*other) else (other, one)
    degrees = math.degrees(math.atan2(abs(longer[1]), abs(longer[0])))
    if np.hypot(*longer) <= SQUARE * np.hypot(*shorter):
        degrees = min(degrees, 90 - degrees)
    return float(np.hypot(*shorter)), degrees
