"""Flip, rotation and scale against `d_iaa_augment`, in the generation of imgaug 0.4.0 (PaddleOCR up to 2.7)."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ocr_ray.data.augment import Augmentation, Crop
from ocr_ray.data.images import Image
from ocr_ray.data.reduced import ReducedImage
from ocr_ray.geometry import affine

GENERATION = "imgaug_0.4.0"
STEPS = ("flip", "rotate", "resize", "all")


@pytest.fixture(scope="module")
def cases(golden: Path) -> list[dict[str, Any]]:
    cases = json.loads((golden / "d_iaa_augment.json").read_text())
    assert any(case["flip"] for case in cases)
    return cases


@pytest.fixture(scope="module")
def vectors(golden: Path) -> Iterator[Any]:
    with np.load(golden / "d_iaa_augment.npz") as arrays:
        yield arrays


def picture_of(case: dict[str, Any]) -> Image:
    small = (case["h"] // 6 + 1, case["w"] // 6 + 1, 3)
    noise = np.random.RandomState(case["image_seed"]).randint(0, 256, small).astype(np.uint8)
    image = np.asarray(cv2.resize(noise, (case["w"], case["h"]), interpolation=cv2.INTER_LINEAR), np.uint8)
    assert zlib.crc32(image.tobytes()) == case["in_crc32"]
    return image


def drawn(case: dict[str, Any], step: str) -> Augmentation:
    """The one step alone, or all; what the net sees is the whole picture as it then is."""
    flip = bool(case["flip"]) and step in ("flip", "all")
    degrees = case["rotate_deg"] if step in ("rotate", "all") else 0.0
    scale = case["resize"] if step in ("resize", "all") else 1.0
    width, height = round(case["w"] * scale), round(case["h"] * scale)
    return Augmentation(case["w"], case["h"], flip, degrees, scale, Crop(0, 0, width, height), width, height)


def staged(image: Image, augmentation: Augmentation) -> Image:
    """The reference's three steps one after another, with our maps.

    Rotation as OpenCV does it before version 5, where coordinates are rounded to 1/32 pixel; version 5 does not, so
    that `cv2.warpAffine` cannot show here that the map is the same to the last digit.
    """
    height, width = image.shape[:2]
    if augmentation.flip:
        image = np.ascontiguousarray(image[:, ::-1])
    if augmentation.degrees:
        forward = affine.for_warp(affine.rotation(augmentation.degrees, width, height))
        m = np.linalg.inv(np.vstack([forward, (0, 0, 1)]))
        x, y = np.arange(width), np.arange(height)[:, None]
        source = [
            (np.rint((m[i, 1] * y + m[i, 2]) * 1024).astype(int) + 16 + np.rint(m[i, 0] * x * 1024).astype(int)) >> 5
            for i in (0, 1)
        ]
        whole = np.stack([s >> 5 for s in source], axis=-1).astype(np.int16)
        fraction = ((source[1] & 31) * 32 + (source[0] & 31)).astype(np.uint16)
        image = np.asarray(cv2.remap(image, whole, fraction, cv2.INTER_LINEAR), np.uint8)
    size = (augmentation.crop.width, augmentation.crop.height)
    if size != (width, height):
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    return image


@pytest.mark.parametrize("step", STEPS)
def test_polygons_equal_the_reference(cases: list[dict[str, Any]], vectors: Any, step: str) -> None:
    for case in cases:
        moved = affine.apply(drawn(case, step).before_crop, vectors[f"{case['key']}/polys_in"])
        expected = vectors[f"{case['key']}/{GENERATION}/{step}/polys"]
        np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-3, err_msg=case["key"])


@pytest.mark.parametrize("step", STEPS)
def test_pixels_equal_the_reference(cases: list[dict[str, Any]], vectors: Any, step: str) -> None:
    for case in cases:
        picture = staged(picture_of(case), drawn(case, step))
        assert list(picture.shape) == vectors[f"{case['key']}/{GENERATION}/{step}/image_shape"].tolist()
        expected = vectors[f"{case['key']}/{GENERATION}/{step}/image_sample"].astype(int)
        assert np.abs(picture[::7, ::7] - expected).max() <= 2, case["key"]


@pytest.mark.parametrize("step", STEPS)
def test_one_warp_differs_by_interpolation_only(cases: list[dict[str, Any]], vectors: Any, step: str) -> None:
    """What training sees is one bilinear warp; the reference rotates, then resizes by cubic splines.

    These pictures are noise enlarged six times, far rougher than photographs. Measured: a mean difference of at most
    2.8 of 255, and 6 and more for a map that is off by one pixel.
    """
    for case in cases:
        image, augmentation = picture_of(case), drawn(case, step)
        expected = vectors[f"{case['key']}/{GENERATION}/{step}/image_sample"].astype(int)
        difference = np.abs(augmentation.picture(ReducedImage(image))[::7, ::7] - expected)
        assert difference.mean() < 4, case["key"]
        off_by_one = np.abs(augmentation.picture(ReducedImage(np.roll(image, 1, axis=1)))[::7, ::7] - expected)
        assert off_by_one.mean() > 8, case["key"]
        if augmentation.degrees == 0 and augmentation.scale == 1:
            assert difference.max() == 0, case["key"]
        if step == "rotate":  # the same interpolation: rounding of coordinates to 1/32 pixel is all that is left
            assert (difference <= 2).mean() > 0.99, case["key"]
            assert difference.max() <= 8, case["key"]
