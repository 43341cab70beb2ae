import cv2
import numpy as np
import pytest

from ocr_ray.inspection.errors import Errors
from ocr_ray.inspection.traits import TRAITS, RegionTraits, by_bin, contrast_inside, traits_of


def turned(degrees: float, width: float = 80, height: float = 20) -> np.ndarray:
    return cv2.boxPoints(((100, 100), (width, height), degrees))


@pytest.mark.parametrize(
    ("polygon", "side", "degrees"),
    [
        (turned(0), 20, 0),
        (turned(30), 20, 30),
        (turned(-30), 20, 30),
        (turned(90), 20, 90),
        (turned(80, 40, 38), 38, 10),  # nearly a square: 10 degrees off the axes
    ],
)
def test_side_and_angle(polygon: np.ndarray, side: float, degrees: float) -> None:
    (found,) = traits_of(np.zeros((200, 200, 3), np.uint8), [polygon], Errors(("missed",), ()))
    assert found.side_px == pytest.approx(side, abs=0.01)
    assert found.degrees == pytest.approx(degrees, abs=0.1)
    assert (found.fate, found.density, found.contrast) == ("missed", 1, 0)


def test_contrast_is_that_of_ink_and_ground_inside() -> None:
    grey = np.full((100, 100), 200, np.uint8)
    grey[:, 50:] = 40
    inside = np.array([[30, 30], [70, 30], [70, 60], [30, 60]])
    assert contrast_inside(grey, inside) == 160
    assert contrast_inside(grey, inside - (30, 0)) == 0  # one half alone
    assert contrast_inside(grey, inside + 500) == 0
    assert contrast_inside(grey, inside - (45, 45)) == 0  # partly outside


def test_only_regions_that_count_are_sorted_and_none_is_lost() -> None:
    polygons = [turned(0), turned(45), turned(0)]
    found = traits_of(np.zeros((200, 200, 3), np.uint8), polygons, Errors(("matched", None, "split"), ()))
    assert [region.fate for region in found] == ["matched", "split"]
    assert {region.density for region in found} == {2}
    for trait in TRAITS:
        assert sum(sum(count.values()) for _, count in by_bin(trait, found)) == 2


def test_a_value_at_an_end_lies_in_the_bin_that_begins_there() -> None:
    size, _, _, density = TRAITS
    regions = [RegionTraits("matched", side, 0, 0, 1) for side in (0, 7.9, 8, 16, 128, 500)]
    assert [(name, sum(count.values())) for name, count in by_bin(size, regions)] == [
        ("0 to 8", 2),
        ("8 to 16", 1),
        ("16 to 32", 1),
        ("128 or more", 2),
    ]
    assert density.bins() == ["1 to 2", "3 to 5", "6 to 10", "11 to 20", "21 or more"]
