"""Polygons of text: size, validity, and offsetting inwards (training targets) or outwards (detections).

A polygon is a float array `(K, 2)` of pixel coordinates, x to the right and y down, without a repeated last point.
"""

import math

import numpy as np
import pyclipper
import shapely
from numpy.typing import ArrayLike, NDArray

Polygon = NDArray[np.floating]

FEW = 16
"""Up to so many points plain Python is faster than NumPy, whose calls cost a microsecond each however short the array.
A picture's maps ask for hundreds of areas and lengths, nearly all of quads."""


def signed_area(polygon: ArrayLike) -> float:
    """Area in square pixels, positive when the points run clockwise as seen on the screen (y points down)."""
    p = np.asarray(polygon, np.float64)
    if len(p) < 3:
        return 0.0
    if len(p) <= FEW:
        return _signed_area_of_few(p.tolist())
    x, y = (p - p[0]).T  # near the origin, so that far-away small polygons keep their digits
    return 0.5 * float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def area(polygon: ArrayLike) -> float:
    """Area in square pixels, whichever way the points run. A self-crossing polygon's loops may cancel."""
    return abs(signed_area(polygon))


def perimeter(polygon: ArrayLike) -> float:
    """Length of the closed outline in pixels."""
    p = np.asarray(polygon, np.float64)
    if len(p) < 2:
        return 0.0
    if len(p) <= FEW:
        return _perimeter_of_few(p.tolist())
    dx, dy = (np.roll(p, -1, axis=0) - p).T
    return float(np.sqrt(dx * dx + dy * dy).sum())


def _area_and_perimeter(polygon: ArrayLike) -> tuple[float, float]:
    p = np.asarray(polygon, np.float64)
    if not 3 <= len(p) <= FEW:
        return area(p), perimeter(p)
    points = p.tolist()
    return abs(_signed_area_of_few(points)), _perimeter_of_few(points)


def _signed_area_of_few(points: list[list[float]]) -> float:
    x0, y0 = points[0]
    one_way = other_way = 0.0
    before_x = before_y = 0.0
    for x, y in points[1:]:  # the first point is the origin, and adds nothing
        x, y = x - x0, y - y0
        one_way += before_x * y
        other_way += before_y * x
        before_x, before_y = x, y
    return 0.5 * (one_way - other_way)


def _perimeter_of_few(points: list[list[float]]) -> float:
    length = 0.0
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        dx, dy = bx - ax, by - ay
        length += math.sqrt(dx * dx + dy * dy)
    return length


def is_valid(polygon: ArrayLike) -> bool:
    """Whether the outline encloses an area and neither crosses nor touches itself (shapely: valid and simple)."""
    p = np.asarray(polygon, np.float64)
    if len(p) < 3 or not np.isfinite(p).all():
        return False
    shape = shapely.Polygon(p)
    return bool(shape.is_valid and shape.is_simple)


def shrink_distance(polygon: ArrayLike, ratio: float) -> float:
    """How far to offset a polygon inwards for its text kernel: `A (1 - ratio^2) / L` pixels; 0 without an outline.

    Source: Liao et al. 2020, "Real-time Scene Text Detection with Differentiable Binarization", section 3.4.
    """
    size, length = _area_and_perimeter(polygon)
    return size * (1 - ratio * ratio) / length if length > 0 else 0.0


def offset(polygon: ArrayLike, distance: float) -> list[NDArray[np.int64]]:
    """The polygon grown by `distance` pixels, or shrunk where it is negative, with round corners.

    Returns: the polygons that come out, `(K, 2)` each: none when the shape vanished, several when it fell apart.
    Coordinates are whole pixels: the input is truncated toward zero first, as the reference's pyclipper call does,
    so a point at 9.9 counts as 9. Arcs deviate from a circle by at most a quarter of a pixel.
    """
    clipper = pyclipper.PyclipperOffset(2.0, 0.25)  # miter limit (unused by round joins), arc tolerance
    clipper.AddPath(np.asarray(polygon, np.float64).tolist(), pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
    return [np.array(path, np.int64).reshape(-1, 2) for path in clipper.Execute(distance)]


def unclip(polygon: ArrayLike, unclip_ratio: float) -> list[NDArray[np.int64]]:
    """A detected kernel grown back to its text by `A * unclip_ratio / L` pixels; see `offset` for what comes out.

    Source: Liao et al. 2020, section 3.5; reference name `DBPostProcess.unclip`.
    """
    size, length = _area_and_perimeter(polygon)
    return offset(polygon, size * unclip_ratio / length) if length > 0 else []
