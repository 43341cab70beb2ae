import numpy as np
import pytest

from ocr_ray.metrics import MatchCounts, Score, match


def rectangle(x: float, y: float, width: float, height: float) -> list[list[float]]:
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]


BOWTIE = [[0, 0], [10, 10], [10, 0], [0, 10]]
POINT = [[5, 5]] * 4


def test_an_iou_of_exactly_one_half_is_no_match() -> None:
    region = rectangle(0, 0, 10, 10)
    assert match([region], [False], [rectangle(0, 0, 10, 5)]) == MatchCounts(1, 1, 0, 0.5)
    assert match([region], [False], [rectangle(0, 0, 10, 5.01)]).matched == 1


def test_a_region_takes_the_first_detection_that_is_free_not_the_best() -> None:
    regions = [rectangle(0, 0, 10, 10), rectangle(0, 0, 10, 8)]
    first, second = rectangle(0, 0, 10, 8), rectangle(0, 0, 10, 10)
    # The first region takes the first detection though the second would fit it exactly.
    assert match(regions, [False, False], [first, second]).matched == 2
    assert match(regions[:1], [False], [first, second]) == MatchCounts(1, 2, 1, 1.0)
    # A greedy loss: only `first` lies over one half of the second region, and the first region has taken it.
    regions = [rectangle(0, 0, 10, 10), rectangle(0, 0, 10, 5)]
    assert match(regions, [False, False], [rectangle(0, 0, 10, 7), rectangle(0, 0, 10, 10)]).matched == 1


def test_a_detection_in_an_ignored_region_counts_neither_way() -> None:
    ignored = rectangle(0, 0, 10, 10)
    assert match([ignored], [True], [rectangle(0, 0, 10, 8)]) == MatchCounts(0, 0, 0)
    assert match([ignored], [True], [rectangle(0, 0, 10, 20)]) == MatchCounts(0, 1, 0)  # exactly one half lies inside
    # Two ignored regions that share a detection do not add up.
    halves = [rectangle(0, 0, 10, 10), rectangle(0, 10, 10, 10)]
    assert match(halves, [True, True], [rectangle(0, 0, 10, 20)]) == MatchCounts(0, 1, 0)


def test_polygons_without_an_inside_are_left_out() -> None:
    assert match([BOWTIE, POINT, rectangle(0, 0, 9, 9)], [False] * 3, [rectangle(0, 0, 9, 9)]).ground_truth == 1
    assert match(
        [rectangle(0, 0, 9, 9)], [False], [BOWTIE, POINT, [[0, 0], [1, 1]], [[0, 0], [9, 0], [np.nan, 9]]]
    ) == (MatchCounts(1, 0, 0))
    assert match([BOWTIE], [True], [rectangle(0, 0, 9, 9)]) == MatchCounts(0, 1, 0)  # an ignored one covers nothing


def test_nothing_on_either_side() -> None:
    assert match([], [], []) == MatchCounts()
    assert match([], [], [rectangle(0, 0, 9, 9)]) == MatchCounts(0, 1, 0)
    assert match([rectangle(0, 0, 9, 9)], [False], []) == MatchCounts(1, 0, 0)


def test_polygons_of_different_lengths_match() -> None:
    octagon = [[3, 0], [7, 0], [10, 3], [10, 7], [7, 10], [3, 10], [0, 7], [0, 3]]
    assert match([octagon], [False], [rectangle(0, 0, 10, 10)]).matched == 1


def test_ignore_must_speak_of_each_region() -> None:
    with pytest.raises(ValueError, match="2 entries"):
        match([rectangle(0, 0, 9, 9)], [False, True], [])


def test_figures_are_zero_where_there_is_nothing_to_divide_by() -> None:
    assert Score.from_counts(MatchCounts()) == Score(0.0, 0.0, 0.0, 0, 0, 0)
    assert Score.from_counts(MatchCounts(3, 0, 0)).hmean == 0.0
    score = Score.from_counts(MatchCounts(4, 2, 1) + MatchCounts(4, 3, 1))
    assert (score.precision, score.recall, score.matched) == (0.4, 0.25, 2)
    assert score.hmean == pytest.approx(2 * 0.4 * 0.25 / 0.65)
