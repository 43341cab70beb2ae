"""The kind of each error in pictures made by hand, and that the kinds add up to the metric's counts in any."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_ray.inspection.errors import KINDS, Errors, find_errors
from ocr_ray.metrics import match


def box(x: float, y: float, width: float, height: float) -> np.ndarray:
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float64)


WORD = box(0, 0, 100, 20)
FAR = box(500, 500, 100, 20)


def test_what_is_found_is_no_error() -> None:
    errors = find_errors([WORD], [False], [box(2, 1, 98, 20)])
    assert errors == Errors(("matched",), ("matched",))
    assert errors.count == 0
    assert errors.in_words() == "no error"


def test_missed_and_false_have_nothing_to_do_with_each_other() -> None:
    errors = find_errors([WORD], [False], [FAR])
    assert errors == Errors(("missed",), ("false",))
    assert errors.count == 2
    assert errors.in_words() == "1 missed, 1 false"


def test_neighbours_that_touch_are_missed_and_false() -> None:
    assert find_errors([WORD], [False], [box(96, 0, 100, 20)]) == Errors(("missed",), ("false",))


@pytest.mark.parametrize(
    "loose",
    [box(0, 0, 45, 20), box(60, 0, 100, 20), box(-50, -20, 200, 60), box(40, 5, 10, 5)],
    ids=["half of it", "shifted", "around it", "a speck in it"],
)
def test_loose(loose: np.ndarray) -> None:
    assert find_errors([WORD], [False], [loose]) == Errors(("loose",), ("loose",))


def test_an_iou_of_one_half_is_loose_and_more_is_a_match() -> None:
    assert find_errors([WORD], [False], [box(0, 0, 50, 20)]).regions == ("loose",)
    assert find_errors([WORD], [False], [box(0, 0, 50.1, 20)]).regions == ("matched",)


def test_split_into_pieces_of_which_none_matches() -> None:
    errors = find_errors([WORD], [False], [box(0, 0, 30, 20), box(35, 0, 30, 20), box(70, 0, 30, 20)])
    assert errors == Errors(("split",), ("split",) * 3)
    assert errors.in_words() == "1 region split"


def test_split_where_one_piece_is_large_enough_to_match() -> None:
    errors = find_errors([WORD], [False], [box(0, 0, 60, 20), box(65, 0, 35, 20)])
    assert errors == Errors(("matched",), ("matched", "split"))
    assert errors.in_words() == "1 detection split"


def test_the_same_region_twice_is_split() -> None:
    assert find_errors([WORD], [False], [WORD, WORD]) == Errors(("matched",), ("matched", "split"))


def test_merged() -> None:
    errors = find_errors([WORD, box(110, 0, 100, 20)], [False, False], [box(0, 0, 210, 20)])
    assert errors == Errors(("merged", "merged"), ("merged",))
    assert errors.in_words() == "2 regions merged"


def test_merged_where_one_region_is_large_enough_to_match() -> None:
    errors = find_errors([WORD, box(110, 0, 30, 20)], [False, False], [box(0, 0, 140, 20)])
    assert errors == Errors(("matched", "merged"), ("matched",))


def test_merged_with_what_nobody_can_read() -> None:
    errors = find_errors([WORD, box(110, 0, 150, 20)], [False, True], [box(-10, -10, 210, 40)])
    assert errors == Errors(("merged", None), ("merged",))


def test_what_the_metric_leaves_out_has_no_fate() -> None:
    bowtie = [[0, 0], [10, 10], [10, 0], [0, 10]]
    errors = find_errors([FAR, bowtie, WORD], [True, False, False], [FAR, bowtie, WORD])
    assert errors == Errors((None, None, "matched"), (None, None, "matched"))


def test_nothing_at_all() -> None:
    assert find_errors([], [], []) == Errors((), ())


whole = st.integers(0, 12).map(float)
polygons = st.lists(st.builds(box, whole, whole, whole, whole), max_size=6)


@settings(max_examples=150, deadline=None)
@given(regions=polygons, found=polygons, data=st.data())
def test_the_kinds_add_up_to_the_counts_of_the_metric(
    regions: list[np.ndarray], found: list[np.ndarray], data: st.DataObject
) -> None:
    ignore = [data.draw(st.booleans()) for _ in regions]
    errors, counts = find_errors(regions, ignore, found), match(regions, ignore, found)
    assert errors.regions.count("matched") == errors.detections.count("matched") == counts.matched
    assert sum(errors.regions.count(kind) for kind in KINDS) == counts.ground_truth - counts.matched
    assert sum(errors.detections.count(kind) for kind in KINDS) == counts.detected - counts.matched
    assert errors.count == counts.ground_truth + counts.detected - 2 * counts.matched
    assert "false" not in errors.regions
    assert "missed" not in errors.detections
    # What is loose on one side has its cause on the other, which may be a piece or a union as well.
    causes = {"loose", "split", "merged"}
    assert "loose" not in errors.regions or causes & {*errors.detections}
    assert "loose" not in errors.detections or causes & {*errors.regions}
    for fate, flag in zip(errors.regions, ignore, strict=True):
        assert fate is None or not flag
