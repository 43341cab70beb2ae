"""Kinds of text on which a detector may be bad while it is good on the whole, by plain rules on labels and pictures."""

from typing import Literal, assert_never, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_ray.data.images import Image
from ocr_ray.data.labels import Sample

Slice = Literal["small", "rotated", "dense", "dark"]
"""A slice is a set of regions:

- `small`: the shorter side of the region's smallest rectangle is below 1/40 of the picture's shorter side (18 pixels of
  720). In proportion to the picture, since that is how a resize rule meets it.
- `rotated`: that rectangle is turned by more than 15 degrees from both axes. Text that stands upright is not.
- `dense`: all regions of a picture that has at least 15, those marked `###` among them, for they crowd it as well.
- `dark`: all regions of a picture whose mean grey value lies below 80 of 255.
"""
SLICES: tuple[Slice, ...] = get_args(Slice)
SMALL = 1 / 40
ROTATED_DEGREES = 15
DENSE = 15
DARK = 80


def regions_in(what: Slice, sample: Sample, image: Image) -> NDArray[np.bool_]:
    """Which of the sample's M regions belong to a slice, `(M,)`.

    Args: image is the sample's picture, `(H, W, 3)` uint8 in B, G, R.
    """
    count = len(sample.polygons)
    match what:
        case "small":
            below = SMALL * min(image.shape[:2])
            return np.array([min(cv2.minAreaRect(p)[1]) < below for p in sample.polygons], np.bool_).reshape(count)
        case "rotated":
            turned = [_degrees_from_axes(p) > ROTATED_DEGREES for p in sample.polygons]
            return np.array(turned, np.bool_).reshape(count)
        case "dense":
            return np.full(count, count >= DENSE)
        case "dark":
            return np.full(count, cv2.mean(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))[0] < DARK)
        case _:
            assert_never(what)


def _degrees_from_axes(polygon: NDArray[np.float32]) -> float:
    """By how much the smallest rectangle is turned from the nearer axis, 0 to 45."""
    angle = cv2.minAreaRect(polygon)[2] % 90
    return min(angle, 90 - angle)
