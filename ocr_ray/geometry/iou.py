"""How much polygons overlap, many against many: bounding boxes first, exact intersections only where those meet.

Overlaps are dense `(M, N)` float64 matrices; a polygon without an area, or one that cannot be built, overlaps nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

Shapes = NDArray[Any]  # (M,) shapely polygons; None where the points make none


def to_shapes(polygons: Sequence[ArrayLike]) -> Shapes:
    """Shapely polygons of `(K, 2)` arrays; None for fewer than 3 points or coordinates that are not finite."""
    points = [np.asarray(p, np.float64).reshape(-1, 2) for p in polygons]
    shapes = np.full(len(points), None, object)
    usable = [i for i, p in enumerate(points) if len(p) >= 3 and np.isfinite(p).all()]
    if usable:
        owner = np.repeat(np.arange(len(usable)), [len(points[i]) for i in usable])
        rings = shapely.linearrings(np.concatenate([points[i] for i in usable]), indices=owner)
        shapes[usable] = shapely.polygons(rings)
    return shapes


def are_valid(shapes: Shapes) -> NDArray[np.bool_]:
    """Which of them enclose an area without crossing or touching themselves."""
    return np.asarray(shapely.is_valid(shapes) & shapely.is_simple(shapes), bool)


def intersection_areas(first: Shapes, second: Shapes) -> NDArray[np.float64]:
    """Area in square pixels of what each of the M polygons `first` shares with each of the N `second`, `(M, N)`.

    Raises: shapely.errors.GEOSException for polygons that cross themselves; leave those out by `are_valid`.
    """
    areas = np.zeros((len(first), len(second)))
    if areas.size:
        rows, columns = shapely.STRtree(second).query(first)
        areas[rows, columns] = shapely.area(shapely.intersection(first[rows], second[columns]))
    return areas


def iou(first: Shapes, second: Shapes) -> NDArray[np.float64]:
    """Intersection over union of each of `first` with each of `second`, `(M, N)` in [0, 1]; 0 for an empty union."""
    shared = intersection_areas(first, second)
    union = _areas(first)[:, None] + _areas(second)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def share_of_first(first: Shapes, second: Shapes) -> NDArray[np.float64]:
    """The part of each of `first` that lies in each of `second`, `(M, N)` in [0, 1]; 0 for an empty polygon."""
    shared = intersection_areas(first, second)
    own = np.broadcast_to(_areas(first)[:, None], shared.shape)
    return np.divide(shared, own, out=np.zeros_like(shared), where=own > 0)


def _areas(shapes: Shapes) -> NDArray[np.float64]:
    return np.nan_to_num(np.asarray(shapely.area(shapes), np.float64))  # the area of None is NaN
