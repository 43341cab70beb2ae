"""Affine maps of the plane, as 3x3 float64 matrices that act on `(x, y)` in pixels.

Coordinates are continuous: pixel i of a picture covers [i, i + 1), so a picture w pixels wide spans [0, w] and its
mirror image takes x to w - x. `for_warp` turns such a map into what OpenCV wants, which counts pixel centres.
"""

import math
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike, NDArray

Affine = NDArray[np.float64]

_TO_CENTRES = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]], np.float64)
_FROM_CENTRES = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], np.float64)


def identity() -> Affine:
    """The map that moves nothing."""
    return np.eye(3)


def translation(dx: float, dy: float) -> Affine:
    """Moves by `dx` to the right and `dy` down."""
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1]], np.float64)


def scaling(sx: float, sy: float) -> Affine:
    """Stretches about the top left corner."""
    return np.array([[sx, 0, 0], [0, sy, 0], [0, 0, 1]], np.float64)


def horizontal_flip(width: float) -> Affine:
    """Mirrors a picture `width` pixels wide, left to right."""
    return np.array([[-1, 0, width], [0, 1, 0], [0, 0, 1]], np.float64)


def rotation(degrees: float, width: float, height: float) -> Affine:
    """Turns about the middle of a `width` x `height` picture; positive degrees turn clockwise on the screen.

    Source: imgaug 0.4.0 `Affine(rotate=...)` (PaddleOCR up to 2.7; its later albumentations code turns the other way).
    """
    angle = math.radians(degrees)
    c, s = math.cos(angle), math.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float64)
    return chain(translation(-width / 2, -height / 2), turn, translation(width / 2, height / 2))


def chain(*maps: Affine) -> Affine:
    """One map that applies `maps` from first to last."""
    return reduce(lambda whole, step: step @ whole, maps)


def inverse(m: Affine) -> Affine:
    """The map back. Raises: numpy.linalg.LinAlgError for a map that flattens the plane."""
    return np.asarray(np.linalg.inv(m), np.float64)


def apply(m: Affine, points: ArrayLike) -> NDArray[np.float64]:
    """Points `(..., 2)` moved by `m`."""
    return np.asarray(np.asarray(points, np.float64) @ m[:2, :2].T + m[:2, 2], np.float64)


def mean_scale(m: Affine) -> float:
    """By how much lengths grow, as the square root of how much areas grow."""
    (a, b, _), (c, d, _), _ = m.tolist()
    return math.sqrt(abs(a * d - b * c))


def for_warp(m: Affine) -> NDArray[np.float64]:
    """`m` as the 2x3 matrix from source to target pixel centres that `cv2.warpAffine` takes."""
    return (_TO_CENTRES @ m @ _FROM_CENTRES)[:2]
