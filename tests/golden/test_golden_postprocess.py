"""e_db_postprocess: maps to boxes and scores, in the reference's order."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ocr_ray import postprocess
from ocr_ray.postprocess import Detection, PostprocessConfig, boxes_from_map

VECTORS_OPENCV = "4.11"
# OpenCV 5 gives minAreaRect's angle in [-90, 0) instead of (0, 90], sides swapped, and rounds it there: it is then some
# millionths of a degree off, and a corner that lies on a whole pixel is truncated to it or to the one before. Where
# that happens the vectors' box must come out to the bit for an angle in the old range that is off by no more.
ROUNDING_DEGREES = [sign * k * 1e-6 for k in range(9) for sign in (1, -1)]


@pytest.fixture(scope="module")
def vectors(golden: Path) -> Iterator[Any]:
    with np.load(golden / "e_db_postprocess.npz") as arrays:
        yield arrays


def config(case: dict[str, Any]) -> PostprocessConfig:
    keys = ("thresh", "box_thresh", "unclip_ratio", "max_candidates", "use_dilation", "score_mode", "box_type")
    return PostprocessConfig(**{key: case[key] for key in keys})


def test_every_case_gives_the_reference_boxes_in_its_order(
    golden: Path, vectors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = json.loads((golden / "e_db_postprocess.json").read_text())
    assert cases
    boxes = rounded_otherwise = 0
    for case in cases:
        probability = vectors[f"prob/{case['map']}"]
        lengths, scores = vectors[f"{case['key']}/lengths"], vectors[f"{case['key']}/scores"]
        points = vectors[f"{case['key']}/points"]
        assert len(points) == lengths.sum()
        expected = list(zip(np.split(points, np.cumsum(lengths))[:-1], scores, strict=True))

        def found(probability: Any = probability, case: dict[str, Any] = case) -> list[Detection]:
            return boxes_from_map(probability, config(case), case["dest_w"], case["dest_h"])

        wrong = unequal(found(), expected)
        boxes += len(expected)
        rounded_otherwise += len(wrong)
        if wrong and not cv2.__version__.startswith(VECTORS_OPENCV):
            for degrees in ROUNDING_DEGREES:
                with monkeypatch.context() as patch:
                    turn_rectangles(patch, degrees)
                    wrong &= unequal(found(), expected)
        assert not wrong, f"{case['key']}: boxes {sorted(wrong)}"
        assert len(expected) == case["n"]
    assert rounded_otherwise <= 0.05 * boxes


def unequal(found: list[Detection], expected: list[tuple[Any, float]]) -> set[int]:
    """Which of the vectors' boxes did not come out; all of them when there are more or fewer."""
    if len(found) != len(expected):
        return set(range(max(len(found), len(expected))))
    return {
        i
        for i, (box, (polygon, score)) in enumerate(zip(found, expected, strict=True))
        if not np.array_equal(box.polygon, polygon) or abs(box.score - score) > 1e-5
    }


def turn_rectangles(patch: pytest.MonkeyPatch, degrees: float) -> None:
    least = cv2.minAreaRect

    def turned(points: Any) -> Any:
        centre, (width, height), angle = least(points)
        if angle <= 0:
            width, height, angle = height, width, angle + 90
        return centre, (width, height), float(np.float32(angle + degrees))

    patch.setattr(postprocess.cv2, "minAreaRect", turned)
