import numpy as np
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely import affinity
from shapely.geometry import Polygon, box

from ocr_ray.geometry import affine
from ocr_ray.geometry.polygons import area, is_valid, offset, perimeter, shrink_distance, signed_area, unclip

sides = st.integers(4, 300)
angles = st.floats(0, 180)


def turned_box(width: int, height: int, angle: float) -> NDArray[np.float64]:
    return np.array(affinity.rotate(box(500, 500, 500 + width, 500 + height), angle).exterior.coords[:4])


@given(
    points=st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)), min_size=3, max_size=14),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_sizes_are_those_of_shapely(points: list[tuple[float, float]], dtype: type[np.floating]) -> None:
    polygon = np.array(points, dtype)
    shape = Polygon(polygon.astype(np.float64))
    # Sums of products up to 1e8 in doubles.
    assert abs(area(polygon) - shape.area) <= 1e-5
    assert abs(perimeter(polygon) - shape.length) <= 1e-8
    assert is_valid(polygon) == bool(shapely.is_valid(shape) and shapely.is_simple(shape))
    assert abs(signed_area(polygon) + signed_area(polygon[::-1])) <= 1e-5


@given(width=sides, height=sides, angle=angles, unclip_ratio=st.floats(0.1, 3))
def test_unclip_contains_the_box_it_grew_from(width: int, height: int, angle: float, unclip_ratio: float) -> None:
    quad = turned_box(width, height, angle)
    (grown,) = unclip(quad, unclip_ratio)
    # pyclipper truncates coordinates: a corner may move by a pixel in x and in y, hence sqrt(2).
    assert Polygon(grown).buffer(2**0.5).contains(Polygon(quad))


@given(width=sides, height=sides, angle=angles, ratio=st.floats(0.1, 0.9))
def test_a_kernel_lies_inside_its_box(width: int, height: int, angle: float, ratio: float) -> None:
    quad = turned_box(width, height, angle)
    # Corners are truncated to whole pixels (up to a pixel in x and y), and what pyclipper finds is rounded twice: the
    # moved edges, then the points where they meet (half a pixel in x and y each time).
    slack = 2**0.5 + 2 * 0.5**0.5
    for kernel in offset(quad, -shrink_distance(quad, ratio)):
        assert Polygon(quad).buffer(slack).contains(shapely.convex_hull(shapely.multipoints(kernel)))


@given(width=sides, height=sides, angle=angles, ratio=st.floats(0.3, 0.7))
def test_a_kernel_lies_at_the_distance(width: int, height: int, angle: float, ratio: float) -> None:
    quad = turned_box(width, height, angle)
    distance = shrink_distance(quad, ratio)
    for kernel in offset(quad, -distance):
        for point in kernel:
            # Truncated corners and a rounded result: a pixel and a half in x and in y.
            assert abs(Polygon(quad).exterior.distance(shapely.Point(point)) - distance) <= 1.5 * 2**0.5


@given(
    width=st.floats(1, 2000),
    height=st.floats(1, 2000),
    degrees=st.floats(-180, 180),
    x=st.floats(-3000, 3000),
    y=st.floats(-3000, 3000),
)
def test_turns_keep_the_middle_and_come_back(width: float, height: float, degrees: float, x: float, y: float) -> None:
    turn = affine.rotation(degrees, width, height)
    middle = np.array([width / 2, height / 2])
    np.testing.assert_allclose(affine.apply(turn, middle), middle, atol=1e-9)
    there = affine.apply(turn, [x, y])
    assert abs(np.hypot(*(there - middle)) - np.hypot(*(np.array([x, y]) - middle))) < 1e-9
    np.testing.assert_allclose(affine.apply(affine.inverse(turn), there), [x, y], atol=1e-8)
    np.testing.assert_allclose(affine.apply(affine.rotation(-degrees, width, height), there), [x, y], atol=1e-8)
