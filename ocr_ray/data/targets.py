"""From text polygons to the four maps that the DB loss compares with."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_ray.data.border import Window, outline_distances
from ocr_ray.errors import ConfigError
from ocr_ray.geometry.polygons import area, offset, shrink_distance

Filled = NDArray[np.int32]
"""`(K, 2)`: corners of an area that OpenCV fills, in whole pixels."""


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


@dataclass(frozen=True, eq=False)
class Outline:
    """A text's outline for the threshold map: its `polygon` `(K, 2)` float64, how far its band reaches, and the window
    of the picture that the band lies in."""

    polygon: NDArray[np.float64]
    reach: float
    window: Window


@dataclass(frozen=True, eq=False)
class TargetShapes:
    """What the maps of one picture are made of. Areas to fill are `(K, 2)` int32, in the order of the polygons."""

    kernels: list[Filled]
    """1 in the shrink map."""
    unseen: list[Filled]
    """0 in the shrink mask."""
    bands: list[Filled]
    """1 in the threshold mask."""
    outlines: list[Outline]
    ignore: NDArray[np.bool_]
    """As `DrawnTargets.ignore`."""


def target_shapes(
    polygons: Sequence[NDArray[np.floating]], ignore: NDArray[np.bool_], height: int, width: int, cfg: TargetConfig
) -> TargetShapes:
    """The geometry of `draw_targets`: what is left to do is to fill areas and to compute distances."""
    shapes = TargetShapes([], [], [], [], np.array(ignore, np.bool_))
    for i, polygon in enumerate(polygons):
        # Nearly all are in the picture, and an ignored one's reach matters to those beside it alone.
        touches = ignore[i] and _is_near(polygon, 0, height, width)
        reach = 0.0 if touches else shrink_distance(polygon, cfg.shrink_ratio)
        if not touches and not _is_near(polygon, reach, height, width):
            continue
        if not ignore[i]:
            _add_band(shapes, polygon, reach, height, width)
        inside = clipped(polygon, height, width)
        kernels = [] if ignore[i] else _kernels(inside, cfg)
        shapes.kernels.extend(kernels)
        if not kernels:
            shapes.ignore[i] = True
            shapes.unseen.append(inside.astype(np.int32))
    return shapes


def draw_targets(
    polygons: Sequence[NDArray[np.floating]], ignore: NDArray[np.bool_], height: int, width: int, cfg: TargetConfig
) -> DrawnTargets:
    """Shrink map, threshold map and their masks for the polygons of one picture.

    Args: polygons `(K, 2)` in pixels of the picture; they may reach beyond it. `ignore` `(M,)` marks those that count
        neither as text nor as background. A polygon that lies beyond the picture, its threshold band included, is
        treated as if it were not there (the reference raises, or draws it mirrored on the border).
    Source: Liao et al. 2020 (DB), section 3.4; reference names `MakeBorderMap`, then `MakeShrinkMap`.
    """
    shapes = target_shapes(polygons, ignore, height, width, cfg)
    shrink_map, shrink_mask = np.zeros((height, width), np.uint8), np.ones((height, width), np.uint8)
    threshold_map = np.full((height, width), cfg.thresh_min, np.float32)
    threshold_mask = np.zeros((height, width), np.uint8)
    for areas, filled, value in (
        (shapes.kernels, shrink_map, 1),
        (shapes.unseen, shrink_mask, 0),
        (shapes.bands, threshold_mask, 1),
    ):
        for corners in areas:
            cv2.fillPoly(filled, [corners], (value,))
    _raise_borders(shapes.outlines, cfg, threshold_map)
    return DrawnTargets(shrink_map, shrink_mask, threshold_map, threshold_mask, shapes.ignore)


def clipped(polygon: NDArray[np.floating], height: int, width: int) -> NDArray[np.floating]:
    """Each point moved to the nearest pixel of the picture: x to [0, width - 1], y to [0, height - 1]."""
    # Not np.clip, which takes thrice as long for so few numbers.
    return np.minimum(np.maximum(polygon, 0), np.array([width - 1, height - 1], polygon.dtype))


def _extent(polygon: NDArray[np.floating]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom. In plain Python: polygons are short, and a picture has hundreds of them."""
    xs, ys = zip(*polygon.tolist(), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _is_near(polygon: NDArray[np.floating], reach: float, height: int, width: int) -> bool:
    """Whether the polygon, grown by `reach`, has a part in the picture."""
    left, top, right, bottom = _extent(polygon)
    return right + reach >= 0 and bottom + reach >= 0 and left - reach <= width - 1 and top - reach <= height - 1


def _kernels(polygon: NDArray[np.floating], cfg: TargetConfig) -> list[Filled]:
    """The shrunk polygon, of one part or several; none where the text is too small, or vanished."""
    left, top, right, bottom = _extent(polygon)
    if min(right - left, bottom - top) < cfg.min_text_size or area(polygon) < 1:
        return []
    kernels: list[NDArray[np.int64]] = []
    # A kernel that fell apart is tried again with a smaller offset; the reference's list of ratios ends before 1.
    for ratio in np.arange(cfg.shrink_ratio, 1, cfg.shrink_ratio):
        kernels = offset(polygon, -shrink_distance(polygon, float(ratio)))
        if len(kernels) == 1:
            break
    return [kernel.astype(np.int32) for kernel in kernels]


def _add_band(shapes: TargetShapes, polygon: NDArray[np.floating], reach: float, height: int, width: int) -> None:
    """The polygon grown by `reach`, and its outline where some of that is in the picture."""
    grown = offset(polygon, reach) if reach > 0 else []
    if not grown:
        return  # no area, or none left after truncation to whole pixels
    band = grown[0].astype(np.int32)
    window = window_of(band, height, width)
    if window is not None:
        shapes.bands.append(band)
        shapes.outlines.append(Outline(np.asarray(polygon, np.float64), reach, window))


def window_of(corners: Filled, height: int, width: int) -> Window | None:
    """The part of the picture that an area's extent covers; None where it covers none."""
    left, top, its_width, its_height = cv2.boundingRect(corners)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + its_width, width), min(top + its_height, height)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _raise_borders(outlines: Sequence[Outline], cfg: TargetConfig, threshold_map: NDArray[np.float32]) -> None:
    """Raises the map to `thresh_max` on the outlines, less so up to their reach away."""
    windows = [outline.window for outline in outlines]
    distances = outline_distances([o.polygon for o in outlines], [o.reach for o in outlines], windows)
    for distance, (x0, y0, x1, y1) in zip(distances, windows, strict=True):
        part = threshold_map[y0:y1, x0:x1]
        raised = np.subtract(1, distance, out=distance)
        raised *= np.float32(cfg.thresh_max - cfg.thresh_min)
        raised += np.float32(cfg.thresh_min)
        np.maximum(part, raised, out=part)
