"""From text polygons to the four maps that the DB loss compares with."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_ray.data.border import Window, outline_distances
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
    reaches = [shrink_distance(polygon, cfg.shrink_ratio) for polygon in polygons]
    near = [_is_near(polygon, reach, height, width) for polygon, reach in zip(polygons, reaches, strict=True)]
    threshold_map = np.full((height, width), cfg.thresh_min, np.float32)
    threshold_mask = np.zeros((height, width), np.uint8)
    outlines = [i for i, (is_near, ignored) in enumerate(zip(near, ignore, strict=True)) if is_near and not ignored]
    _draw_borders([polygons[i] for i in outlines], [reaches[i] for i in outlines], cfg, threshold_map, threshold_mask)
    shrink_map, shrink_mask = np.zeros((height, width), np.uint8), np.ones((height, width), np.uint8)
    drawn = np.array(ignore, np.bool_)
    for i, (polygon, is_near) in enumerate(zip(polygons, near, strict=True)):
        if is_near:
            drawn[i] = not _draw_kernel(clipped(polygon, height, width), bool(ignore[i]), cfg, shrink_map, shrink_mask)
    return DrawnTargets(shrink_map, shrink_mask, threshold_map, threshold_mask, drawn)


def clipped(polygon: NDArray[np.floating], height: int, width: int) -> NDArray[np.floating]:
    """Each point moved to the nearest pixel of the picture: x to [0, width - 1], y to [0, height - 1]."""
    return np.clip(polygon, 0, np.array([width - 1, height - 1], polygon.dtype))


def _extent(polygon: NDArray[np.floating]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom. In plain Python: polygons are short, and a picture has hundreds of them."""
    xs, ys = zip(*polygon.tolist(), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _is_near(polygon: NDArray[np.floating], reach: float, height: int, width: int) -> bool:
    """Whether the polygon, grown by `reach`, has a part in the picture."""
    left, top, right, bottom = _extent(polygon)
    return right + reach >= 0 and bottom + reach >= 0 and left - reach <= width - 1 and top - reach <= height - 1


def _draw_kernel(
    polygon: NDArray[np.floating],
    ignored: bool,
    cfg: TargetConfig,
    shrink_map: NDArray[np.uint8],
    shrink_mask: NDArray[np.uint8],
) -> bool:
    """Fills the shrunk polygon into the map, or blanks the polygon in the mask. Returns: whether it counts as text."""
    left, top, right, bottom = _extent(polygon)
    if not ignored and min(right - left, bottom - top) >= cfg.min_text_size and area(polygon) >= 1:
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


def _draw_borders(
    polygons: Sequence[NDArray[np.floating]],
    reaches: Sequence[float],
    cfg: TargetConfig,
    threshold_map: NDArray[np.float32],
    threshold_mask: NDArray[np.uint8],
) -> None:
    """Raises the map to `thresh_max` on the outlines, less so up to `reach` away; fills the bands' hulls."""
    height, width = threshold_map.shape
    drawn: list[tuple[NDArray[np.float64], float]] = []
    windows: list[Window] = []
    for polygon, reach in zip(polygons, reaches, strict=True):
        grown = offset(polygon, reach) if reach > 0 else []
        if not grown:
            continue  # no area, or none left after truncation to whole pixels
        hull = grown[0].astype(np.int32)
        cv2.fillPoly(threshold_mask, [hull], (1,))
        left, top, hull_width, hull_height = cv2.boundingRect(hull)
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + hull_width, width), min(top + hull_height, height)
        if x0 < x1 and y0 < y1:
            drawn.append((np.asarray(polygon, np.float64), reach))
            windows.append((x0, y0, x1, y1))
    distances = outline_distances([polygon for polygon, _ in drawn], [reach for _, reach in drawn], windows)
    for distance, (x0, y0, x1, y1) in zip(distances, windows, strict=True):
        part = threshold_map[y0:y1, x0:x1]
        raised = np.subtract(1, distance, out=distance)
        raised *= np.float32(cfg.thresh_max - cfg.thresh_min)
        raised += np.float32(cfg.thresh_min)
        np.maximum(part, raised, out=part)
