"""Overlaps of many polygons against each pair alone, and matching against its definition in a double loop."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import affinity
from shapely.geometry import Polygon, box

from ocr_ray.geometry.iou import are_valid, intersection_areas, iou, share_of_first, to_shapes
from ocr_ray.metrics import MatchCounts, match

coordinates = st.integers(0, 60)


@st.composite
def quads(draw: st.DrawFn) -> list[tuple[float, float]]:
    """Turned rectangles on a small canvas, so that many overlap."""
    x, y, width, height = (draw(coordinates) for _ in range(4))
    turned = affinity.rotate(box(x, y, x + width + 1, y + height + 1), draw(st.floats(-45, 45)))
    return list(turned.exterior.coords)[:4]


polygons = st.lists(quads(), max_size=6)
any_polygons = st.lists(
    st.one_of(quads(), st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=5)), max_size=6
)


@settings(deadline=None)
@given(first=polygons, second=polygons)
def test_overlaps_equal_those_of_each_pair(first: list, second: list) -> None:
    a, b = to_shapes(first), to_shapes(second)
    assert are_valid(a).all()
    shared, ratio, share = intersection_areas(a, b), iou(a, b), share_of_first(a, b)
    assert shared.shape == ratio.shape == share.shape == (len(first), len(second))
    for i, p in enumerate(first):
        for j, q in enumerate(second):
            one, other = Polygon(p), Polygon(q)
            common = one.intersection(other).area
            np.testing.assert_allclose(shared[i, j], common, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(ratio[i, j], common / one.union(other).area, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(share[i, j], common / one.area, rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(first=polygons, second=polygons)
def test_iou_is_symmetric_and_1_for_the_same(first: list, second: list) -> None:
    a, b = to_shapes(first), to_shapes(second)
    np.testing.assert_allclose(iou(a, b), iou(b, a).T, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.diag(iou(a, a)), 1, rtol=1e-9)


@settings(max_examples=200, deadline=None)
@given(regions=any_polygons, found=any_polygons, data=st.data())
def test_matching_equals_its_definition(regions: list, found: list, data: st.DataObject) -> None:
    ignore = data.draw(st.lists(st.booleans(), min_size=len(regions), max_size=len(regions)))
    counts = match(regions, ignore, found)
    assert (counts.ground_truth, counts.detected, counts.matched) == by_definition(regions, ignore, found)


@settings(deadline=None)
@given(regions=polygons)
def test_labels_find_themselves(regions: list) -> None:
    counts = match(regions, [False] * len(regions), regions)
    # Near copies may take each other's detection, but each copy still finds one that is free.
    assert counts.ground_truth == counts.detected == len(regions)
    distinct = not (np.triu(iou(to_shapes(regions), to_shapes(regions)), 1) > 0.5).any()
    if distinct:
        assert counts == MatchCounts(len(regions), len(regions), len(regions), counts.best_iou)


def by_definition(regions: list, ignore: list[bool], found: list) -> tuple[int, int, int]:
    def valid(points: list) -> bool:
        return len(points) >= 3 and Polygon(points).is_valid and Polygon(points).is_simple

    kept = [(Polygon(p), skip) for p, skip in zip(regions, ignore, strict=True) if valid(p)]
    boxes = [Polygon(p) for p in found if valid(p)]
    counted = [b for b in boxes if not any(skip and b.intersection(p).area / b.area > 0.5 for p, skip in kept)]
    cared = [p for p, skip in kept if not skip]
    taken: set[int] = set()
    matched = 0
    for p in cared:
        for j, b in enumerate(counted):
            if j not in taken and p.intersection(b).area / p.union(b).area > 0.5:
                taken.add(j)
                matched += 1
                break
    return len(cared), len(counted), matched
