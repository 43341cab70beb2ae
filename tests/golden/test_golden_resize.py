"""d_resize_normalize: DetResizeForTest, NormalizeImage and DetLabelEncode."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ocr_ray.data.labels import read_labels
from ocr_ray.data.normalize import NormalizeConfig, normalize
from ocr_ray.data.resize import ResizeConfig, resize_for_test, resized_shape


@pytest.fixture(scope="module")
def cases(golden: Path) -> list[dict[str, Any]]:
    return json.loads((golden / "d_resize_normalize.json").read_text())


@pytest.fixture(scope="module")
def vectors(golden: Path) -> Iterator[Any]:
    with np.load(golden / "d_resize_normalize.npz") as arrays:
        yield arrays


def ours(reference: dict[str, Any]) -> ResizeConfig:
    """The reference's keys in our words: its `resize_long` by itself goes by multiples of 128."""
    if "resize_long" in reference:
        return ResizeConfig(limit_side_len=reference["resize_long"], limit_type="resize_long_128")
    if "image_shape" in reference:
        return ResizeConfig(image_shape=tuple(reference["image_shape"]), keep_ratio=reference.get("keep_ratio", False))
    return ResizeConfig(**reference)


def test_every_resize_case_is_equal_to_the_byte(cases: list[dict[str, Any]], vectors: Any) -> None:
    resized = [case for case in cases if case["key"].startswith("resize/")]
    assert resized
    for case in resized:
        image = np.random.RandomState(case["seed"]).randint(0, 256, (case["h"], case["w"], 3)).astype(np.uint8)
        result, shape = resize_for_test(image, ours(case["config"]))
        assert list(result.shape) == case["out_shape"], case["key"]
        np.testing.assert_array_equal(shape, vectors[f"{case['key']}/shape"], err_msg=case["key"])
        np.testing.assert_array_equal(result[::17, ::13], vectors[f"{case['key']}/sample"], err_msg=case["key"])
        assert zlib.crc32(result.tobytes()) == case["crc32"], case["key"]


def test_a_photograph_of_icdar_2015_becomes_1312_by_736() -> None:
    assert resized_shape(720, 1280, ResizeConfig()) == (736, 1312)


def test_normalised_pixels_are_equal(vectors: Any) -> None:
    image = torch.from_numpy(vectors["normalize/in"]).permute(2, 0, 1)[None]
    result = normalize(image, NormalizeConfig())[0].numpy()
    np.testing.assert_allclose(result, vectors["normalize/out_chw"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.transpose(1, 2, 0), vectors["normalize/out_hwc"], rtol=0, atol=1e-6)


def test_label_lines_give_the_same_polygons_and_ignore_flags(
    cases: list[dict[str, Any]], vectors: Any, tmp_path: Path
) -> None:
    labels = [case for case in cases if case["key"].startswith("labelencode/")]
    assert labels
    lines = [f"{i}.jpg\t{json.dumps(case['label'])}\n" for i, case in enumerate(labels)]
    (tmp_path / "labels.txt").write_text("".join(lines))
    for case, sample in zip(labels, read_labels(tmp_path / "labels.txt"), strict=True):
        # The reference drops a picture without boxes; here it stays, as a negative.
        assert case["returns_none"] == (len(sample.polygons) == 0), case["key"]
        if not case["returns_none"]:
            expected = vectors[f"{case['key']}/polys"]
            for polygon, padded in zip(sample.polygons, expected, strict=True):
                np.testing.assert_array_equal(polygon, padded[: len(polygon)])
                assert (padded[len(polygon) :] == padded[len(polygon) - 1]).all()  # its padding
            np.testing.assert_array_equal(sample.ignore, vectors[f"{case['key']}/ignore_tags"])
