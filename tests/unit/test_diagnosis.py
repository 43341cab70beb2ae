import numpy as np
import pytest

from ocr_ray.engine.diagnosis import MapStatistics, diagnose
from ocr_ray.metrics import MatchCounts
from ocr_ray.postprocess import PostprocessConfig

QUIET = MapStatistics(pixels=100, total=2.0, lowest=0.0, highest=0.2)
SURE = MapStatistics(pixels=100, total=5.0, lowest=0.0, highest=0.97)


@pytest.mark.parametrize(
    ("counts", "found", "maps", "regions", "expected"),
    [
        (MatchCounts(5, 0, 0), 0, MapStatistics(50, 1.0, 0.0, 0.2, not_finite=50), 5, "not finite in 50%"),
        (MatchCounts(0, 3, 0), 3, SURE, 0, "no text region is labelled"),
        (MatchCounts(0, 3, 0), 3, SURE, 7, "all 7 labelled regions are ignored"),
        (MatchCounts(5, 1, 0), 1, MapStatistics(100, 55.0, 0.1, 0.9), 5, "not loaded or not trained"),
        (MatchCounts(5, 0, 0), 0, MapStatistics(100, 5.0, 0.049, 0.051), 5, "not loaded or not trained"),
        (MatchCounts(5, 0, 0), 0, QUIET, 5, "no box found: the highest probability seen is 0.20, thresh is 0.3"),
        (MatchCounts(5, 0, 0), 0, SURE, 5, "no box found: probabilities reach 0.97"),
        (MatchCounts(5, 0, 0), 4, SURE, 6, "all 4 boxes found lie in ignored regions"),
        (MatchCounts(5, 4, 0), 4, SURE, 5, "none touches a labelled region"),
        (MatchCounts(5, 4, 0, 0.43), 4, SURE, 5, "the best IoU is 0.43"),
    ],
)
def test_each_reason_has_its_line(
    counts: MatchCounts, found: int, maps: MapStatistics, regions: int, expected: str
) -> None:
    line = diagnose(counts, found, maps, regions, PostprocessConfig())
    assert expected in line
    assert "\n" not in line


def test_statistics_of_two_maps_add_up_to_those_of_both() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((4, 5), np.float32), rng.random((6, 7), np.float32)
    second[0, 0] = np.nan
    second[0, 1] = np.inf
    both = MapStatistics.of(first) + MapStatistics.of(second)
    finite = np.concatenate([first.ravel(), second.ravel()[2:]])
    assert (both.pixels, both.not_finite) == (60, 2)
    assert both.mean == pytest.approx(finite.mean())
    assert (both.lowest, both.highest) == (finite.min(), finite.max())


def test_a_map_without_a_number_has_no_mean() -> None:
    nothing = MapStatistics.of(np.full((3, 3), np.nan, np.float32))
    assert (nothing.pixels, nothing.not_finite, nothing.mean) == (0, 9, 0.0)
