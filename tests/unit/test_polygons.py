import math

import numpy as np
import pytest

from ocr_ray.geometry.polygons import FEW, area, is_valid, offset, perimeter, shrink_distance, signed_area, unclip

SQUARE = np.array([[0, 0], [10, 0], [10, 10], [0, 10]])


def test_sizes_of_a_square() -> None:
    assert area(SQUARE) == 100
    assert signed_area(SQUARE) == 100  # clockwise on the screen
    assert signed_area(SQUARE[::-1]) == -100
    assert perimeter(SQUARE) == 40
    assert shrink_distance(SQUARE, 0.4) == pytest.approx(100 * 0.84 / 40)


@pytest.mark.parametrize("points", [np.zeros((0, 2)), np.ones((1, 2)), np.array([[1, 1], [5, 5]])])
def test_what_is_no_polygon_has_no_area(points: np.ndarray) -> None:
    assert area(points) == 0
    assert not is_valid(points)
    assert unclip(points, 1.5) == []


def test_far_away_polygons_keep_their_digits() -> None:
    assert area(SQUARE.astype(np.float32) * 0.1 + 2.0**20) == pytest.approx(area(SQUARE * 0.1), rel=0.3)
    assert area(SQUARE + 1e9) == 100


def test_validity() -> None:
    assert is_valid(SQUARE)
    assert is_valid(SQUARE[::-1])
    assert not is_valid([[0, 0], [10, 10], [10, 0], [0, 10]])  # crosses itself
    assert not is_valid([[0, 0], [10, 0], [20, 0], [5, 0]])  # flat
    assert not is_valid([[0, 0], [10, 0], [10, math.nan], [0, 10]])


def test_a_shrunk_square_is_a_square() -> None:
    (inner,) = offset(SQUARE, -3)
    assert sorted(map(tuple, inner.tolist())) == [(3, 3), (3, 7), (7, 3), (7, 7)]


def test_shrunk_to_nothing() -> None:
    assert offset(SQUARE, -6) == []


def test_what_is_shrunk_may_fall_apart() -> None:
    dumbbell = [[0, 0], [20, 0], [20, 8], [40, 8], [40, 0], [60, 0], [60, 20], [40, 20], [40, 12], [20, 12], [20, 20]]
    assert len(offset([*dumbbell, [0, 20]], -3)) == 2


def test_coordinates_are_truncated_toward_zero() -> None:
    (grown,) = offset(SQUARE + 0.9, 0)
    assert sorted(map(tuple, grown.tolist())) == sorted(map(tuple, SQUARE.tolist()))
    (grown,) = offset(SQUARE - 5.9, 0)
    assert grown.min() == -5


def test_corners_are_round() -> None:
    (grown,) = offset(SQUARE * 10, 50)
    corner = grown[(grown < 0).all(axis=1)]
    assert len(corner) > 5
    # Whole pixels, and arcs that cut in by at most a quarter of a pixel.
    np.testing.assert_allclose(np.hypot(*corner.T), 50, atol=0.25 + math.sqrt(0.5))


def test_unclip_of_a_rectangle() -> None:
    (grown,) = unclip([[50, 60], [200, 60], [200, 90], [50, 90]], 1.5)
    assert grown.min(axis=0).tolist() == [50 - 19, 60 - 19]  # 4500 * 1.5 / 360 = 18.75
    assert grown.max(axis=0).tolist() == [200 + 19, 90 + 19]


def test_few_and_many_points_are_measured_alike() -> None:
    quad = np.array([(10.5, 3.25), (80.125, 9.0), (77.0, 40.75), (8.0, 30.5)])
    share = np.linspace(0, 1, 9)[:-1, None]
    many = np.concatenate([a + share * (b - a) for a, b in zip(quad, np.roll(quad, -1, axis=0), strict=True)])
    assert len(many) > FEW >= len(quad)
    assert signed_area(many) == pytest.approx(signed_area(quad), rel=1e-12)
    assert perimeter(many) == pytest.approx(perimeter(quad), rel=1e-12)
    assert signed_area(many[::-1]) == -signed_area(many)
