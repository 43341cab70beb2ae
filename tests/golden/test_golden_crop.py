"""Crops against `d_east_crop`: given the rectangle, polygons and pixels are the reference's."""

import json
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ocr_ray.data.augment import Augmentation, AugmentConfig, Crop, cut, draw_crop
from ocr_ray.data.images import Image
from ocr_ray.data.reduced import ReducedImage

Loaded = tuple[dict[str, Any], dict[str, NDArray[Any]]]


@pytest.fixture(scope="module")
def cases(golden: Path) -> list[Loaded]:
    with np.load(golden / "d_east_crop.npz") as vectors:
        arrays: dict[str, dict[str, NDArray[Any]]] = defaultdict(dict)
        for name in vectors.files:
            key, _, field = name.partition("/")
            arrays[key][field] = vectors[name]
    loaded = [(case, arrays[case["key"]]) for case in json.loads((golden / "d_east_crop.json").read_text())]
    assert len(loaded) >= 10
    return loaded


def picture_of(case: dict[str, Any]) -> Image:
    small = (case["h"] // 8 + 1, case["w"] // 8 + 1, 3)
    noise = np.random.RandomState(case["image_seed"]).randint(0, 256, small).astype(np.uint8)
    image = np.asarray(cv2.resize(noise, (case["w"], case["h"]), interpolation=cv2.INTER_LINEAR), np.uint8)
    assert zlib.crc32(image.tobytes()) == case["in_crc32"]
    return image


def cropped(case: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Augmentation:
    width, height = case["size"]
    crop = Crop(*(int(v) for v in arrays["rect_xywh"]))
    return Augmentation(case["w"], case["h"], False, 0.0, 1.0, crop, width, height)


def test_pixels_equal_the_reference(cases: list[Loaded]) -> None:
    for case, arrays in cases:
        image, augmentation = picture_of(case), cropped(case, arrays)
        if case["keep_ratio"]:
            picture = augmentation.picture(ReducedImage(image))
        else:  # stretched to the full size: not offered in training, since the reference leaves the polygons behind
            picture = cut(image, augmentation.crop, *case["size"])
        assert list(picture.shape) == case["out_shape"], case["key"]
        assert zlib.crc32(picture.tobytes()) == case["crc32"], case["key"]


def test_polygons_equal_the_reference(cases: list[Loaded]) -> None:
    for case, arrays in cases:
        moved, kept = cropped(case, arrays).moved(list(arrays["polys_in"]))
        assert kept == arrays["kept_index"].tolist(), case["key"]
        np.testing.assert_array_equal(arrays["ignore_in"][kept], arrays["ignore_out"], err_msg=case["key"])
        for ours, expected in zip(moved, arrays["polys_out"], strict=True):
            # One matrix in place of two steps: the last bits of a double differ.
            np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-9, err_msg=case["key"])


def test_the_reference_rectangles_keep_our_rules(cases: list[Loaded]) -> None:
    looked_at = 0
    for case, arrays in cases:
        guides = [p for p, ignored in zip(arrays["polys_in"], arrays["ignore_in"], strict=True) if not ignored]
        x, y, w, h = (int(v) for v in arrays["rect_xywh"])
        if (x, y, w, h) == (0, 0, case["w"], case["h"]) or any(p.min() < 0 for p in guides):
            continue  # the fallback; or text across the left or upper border, which the reference overlooks
        looked_at += 1
        cfg = AugmentConfig(min_crop_side_ratio=case["min_crop_side_ratio"])
        assert keeps_the_rules(Crop(x, y, w, h), guides, case["w"], case["h"], cfg), case["key"]
    assert looked_at >= 3


def test_our_rectangles_keep_the_rules(cases: list[Loaded]) -> None:
    rng = np.random.default_rng(5)
    for case, arrays in cases:
        guides = [p for p, ignored in zip(arrays["polys_in"], arrays["ignore_in"], strict=True) if not ignored]
        cfg = AugmentConfig(max_tries=case["max_tries"], min_crop_side_ratio=case["min_crop_side_ratio"])
        for _ in range(50):
            crop = draw_crop(guides, case["w"], case["h"], cfg, rng)
            whole = crop == Crop(0, 0, case["w"], case["h"])
            assert whole or keeps_the_rules(crop, guides, case["w"], case["h"], cfg), case["key"]


def keeps_the_rules(
    crop: Crop, guides: list[NDArray[np.floating]], width: int, height: int, cfg: AugmentConfig
) -> bool:
    """Large enough, sides in columns and rows that no guide covers, and touching a guide if there is one."""
    if crop.width < cfg.min_crop_side_ratio * width or crop.height < cfg.min_crop_side_ratio * height:
        return False
    if not guides:
        return True
    low, high = np.array([p.min(axis=0) for p in guides]), np.array([p.max(axis=0) for p in guides])
    corners = ((crop.x, crop.x + crop.width), (crop.y, crop.y + crop.height))
    for axis, sides in enumerate(corners):
        for side in sides:
            if ((np.rint(low[:, axis]) <= side) & (side < np.rint(high[:, axis]))).any():
                return False
    near, far = (crop.x, crop.y), (crop.x + crop.width, crop.y + crop.height)
    return bool(((low <= far) & (high >= near)).all(axis=1).any())
