"""From text polygons to the four maps that the DB loss compares with."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_ray.errors import ConfigError
from ocr_ray.geometry.polygons import area, offset, shrink_distance


@dataclass(frozen=True)
class TargetConfig:
    """How target maps are drawn; the defaults are the reference's."""

    shrink_ratio: float = 0.4
    """Kernels are offset inwards by `A (1 - shrink_ratio^2) / L`, the threshold band reaches as far outwards."""
    thresh_min: float = 0.3
    """Threshold map away from text."""
    thresh_max: float = 0.7
    """Threshold map on a text's outline."""
    min_text_size: int = 8
    """Text whose extent in x or y is under this many pixels of the crop is ignored."""

    def __post_init__(self) -> None:
        if not 0 < self.shrink_ratio < 1:
            raise ConfigError(f"data.targets.shrink_ratio: {self.shrink_ratio}, expected a number between 0 and 1")
        if not 0 <= self.thresh_min < self.thresh_max <= 1:
            raise ConfigError(
                f"data.targets.thresh_min: {self.thresh_min} with data.targets.thresh_max={self.thresh_max}, "
                "expected 0 <= thresh_min < thresh_max <= 1"
            )


@dataclass(frozen=True, eq=False)
class DrawnTargets:
    """The maps of one picture, `(H, W)` each, and what became of its polygons."""

    shrink_map: NDArray[np.uint8]
    shrink_mask: NDArray[np.uint8]
    threshold_map: NDArray[np.float32]
    threshold_mask: NDArray[np.uint8]
    ignore: NDArray[np.bool_]
    """`(M,)`: also true for text that was too small or vanished when shrunk."""


def draw_targets(
    polygons: Sequence[NDArray[np.floating]], ignore: NDArray[np.bool_], height: int, width: int, cfg: TargetConfig
) -> DrawnTargets:
    """Shrink map, threshold map and their masks for the polygons of one picture.

    Args: polygons `(K, 2)` in pixels of the picture; they may reach beyond it. `ignore` `(M,)` marks those that count
        neither as text nor as background. A polygon that lies beyond the picture, its threshold band included, is
        treated as if it were not there (the reference raises, or draws it mirrored on the border).
    Source: Liao et al. 2020 (DB), section 3.4; reference names `MakeBorderMap`, then `MakeShrinkMap`.
    """
    near = [_reaches(polygon, height, width, cfg.shrink_ratio) for polygon in polygons]
    threshold_map = np.full((height, width), cfg.thresh_min, np.float32)
    threshold_mask = np.zeros((height, width), np.uint8)
    for polygon, is_near, ignored in zip(polygons, near, ignore, strict=True):
        if is_near and not ignored:
            _draw_border(polygon, cfg, threshold_map, threshold_mask)
    shrink_map, shrink_mask = np.zeros((height, width), np.uint8), np.ones((height, width), np.uint8)
    drawn = np.array(ignore, np.bool_)
    for i, (polygon, is_near) in enumerate(zip(polygons, near, strict=True)):
        if is_near:
            drawn[i] = not _draw_kernel(clipped(polygon, height, width), bool(ignore[i]), cfg, shrink_map, shrink_mask)
    return DrawnTargets(shrink_map, shrink_mask, threshold_map, threshold_mask, drawn)


def clipped(polygon: NDArray[np.floating], height: int, width: int) -> NDArray[np.floating]:
    """Each point moved to the nearest pixel of the picture: x to [0, width - 1], y to [0, height - 1]."""
    return np.clip(polygon, 0, np.array([width - 1, height - 1], polygon.dtype))


def _reaches(polygon: NDArray[np.floating], height: int, width: int, shrink_ratio: float) -> bool:
    """Whether the polygon, grown by its shrink distance, has a part in the picture."""
    reach = shrink_distance(polygon, shrink_ratio)
    low, high = polygon.min(axis=0) - reach, polygon.max(axis=0) + reach
    return bool((high >= 0).all() and low[0] <= width - 1 and low[1] <= height - 1)


def _draw_kernel(
    polygon: NDArray[np.floating],
    ignored: bool,
    cfg: TargetConfig,
    shrink_map: NDArray[np.uint8],
    shrink_mask: NDArray[np.uint8],
) -> bool:
    """Fills the shrunk polygon into the map, or blanks the polygon in the mask. Returns: whether it counts as text."""
    if not ignored and area(polygon) >= 1 and np.ptp(polygon, axis=0).min() >= cfg.min_text_size:
        kernels: list[NDArray[np.int64]] = []
        # A kernel that fell apart is tried again with a smaller offset; the reference's list of ratios ends before 1.
        for ratio in np.arange(cfg.shrink_ratio, 1, cfg.shrink_ratio):
            kernels = offset(polygon, -shrink_distance(polygon, float(ratio)))
            if len(kernels) == 1:
                break
        for kernel in kernels:
            cv2.fillPoly(shrink_map, [kernel.astype(np.int32)], (1,))
        if kernels:
            return True
    cv2.fillPoly(shrink_mask, [polygon.astype(np.int32)], (0,))
    return False


def _draw_border(
    polygon: NDArray[np.floating],
    cfg: TargetConfig,
    threshold_map: NDArray[np.float32],
    threshold_mask: NDArray[np.uint8],
) -> None:
    """Raises the map to `thresh_max` on the outline, less so up to a shrink distance away; fills the band's hull."""
    reach = shrink_distance(polygon, cfg.shrink_ratio)
    grown = offset(polygon, reach) if reach > 0 else []
    if not grown:
        return  # no area, or none left after truncation to whole pixels
    hull = grown[0]
    cv2.fillPoly(threshold_mask, [hull.astype(np.int32)], (1,))
    height, width = threshold_map.shape
    x0, y0 = np.maximum(hull.min(axis=0), 0)
    x1, y1 = np.minimum(hull.max(axis=0) + 1, (width, height))
    if x0 < x1 and y0 < y1:
        part = threshold_map[y0:y1, x0:x1]
        raised = 1 - _distance(np.arange(x0, x1), np.arange(y0, y1), np.asarray(polygon, np.float64), reach)
        raised *= np.float32(cfg.thresh_max - cfg.thresh_min)
        raised += np.float32(cfg.thresh_min)
        np.fmax(part, raised, out=part)  # fmax: a vertex that is given twice has no distance in its own pixel


def _distance(
    xs: NDArray[np.int64], ys: NDArray[np.int64], polygon: NDArray[np.float64], reach: float
) -> NDArray[np.float32]:
    """Distance to the nearest edge, in units of `reach` and cut at 1, at each pixel of the grid `ys` x `xs`.

    An edge's distance is the perpendicular one where the pixel sees the edge under an obtuse angle, else that to the
    nearer end. Near the ends of a short edge this is more than the distance to the segment; it is the reference's rule.
    """
    nearest = np.full((len(ys), len(xs)), reach * reach)
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        # Beyond `reach` the edge changes nothing, so only the pixels around it are looked at.
        left, top = np.minimum(a, b) - reach
        right, bottom = np.maximum(a, b) + reach
        columns = slice(*np.searchsorted(xs, (left, right)))
        rows = slice(*np.searchsorted(ys, (top, bottom)))
        (ax, ay), (bx, by) = a, b
        x, y = xs[columns], ys[rows, None]
        squared_length = (bx - ax) ** 2 + (by - ay) ** 2
        to_a, to_b = (x - ax) ** 2 + (y - ay) ** 2, (x - bx) ** 2 + (y - by) ** 2
        with np.errstate(invalid="ignore"):
            across = ((x - ax) * (by - ay) - (y - ay) * (bx - ax)) ** 2 / squared_length
        squared = np.where(to_a + to_b > squared_length, np.minimum(to_a, to_b), across)
        part = nearest[rows, columns]
        np.minimum(part, squared, out=part)
    return (np.sqrt(nearest) / reach).astype(np.float32)
