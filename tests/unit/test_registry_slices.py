"""Which regions belong to which kind of text."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ocr_ray.data.labels import Sample
from ocr_ray.registry.slices import SLICES, regions_in


def sample(*polygons: NDArray[np.float32], ignore: bool = False) -> Sample:
    count = len(polygons)
    return Sample(Path("a.jpg"), polygons, np.full(count, ignore), ("text",) * count)


def picture(grey: int = 200) -> NDArray[np.uint8]:
    return np.full((400, 600, 3), grey, np.uint8)


def turned(width: float, height: float, degrees: float) -> NDArray[np.float32]:
    return np.asarray(cv2.boxPoints(((300, 200), (width, height), degrees)), np.float32)


@pytest.mark.parametrize(("height", "expected"), [(9.9, True), (10.1, False)])
def test_small_is_below_a_fortieth_of_the_pictures_shorter_side(height: float, expected: bool) -> None:
    flat, upright = turned(100, height, 0), turned(height, 100, 0)
    assert regions_in("small", sample(flat, upright), picture()).tolist() == [expected, expected]


@pytest.mark.parametrize(
    ("degrees", "expected"), [(0, False), (14, False), (16, True), (-16, True), (45, True), (76, False), (90, False)]
)
def test_rotated_is_away_from_both_axes(degrees: float, expected: bool) -> None:
    assert regions_in("rotated", sample(turned(100, 30, degrees)), picture()).tolist() == [expected]


def test_dense_is_all_of_a_picture_with_many_regions_readable_or_not() -> None:
    many = [turned(20, 20, 0)] * 15
    assert regions_in("dense", sample(*many, ignore=True), picture()).all()
    assert not regions_in("dense", sample(*many[1:]), picture()).any()


def test_dark_is_all_of_a_picture_whose_mean_is_low() -> None:
    two = sample(turned(50, 20, 0), turned(50, 20, 0))
    assert regions_in("dark", two, picture(79)).tolist() == [True, True]
    assert regions_in("dark", two, picture(80)).tolist() == [False, False]


def test_a_picture_without_regions_is_in_no_slice() -> None:
    for what in SLICES:
        inside = regions_in(what, sample(), picture(0))
        assert inside.shape == (0,)
        assert inside.dtype == bool
