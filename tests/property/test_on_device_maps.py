"""Maps that a device puts together are those of `draw_targets`, to the last bit."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ocr_ray.data.augment import Source
from ocr_ray.data.compact import BLACK, CompactItem, areas_of, collate_compact
from ocr_ray.data.on_device import on_device
from ocr_ray.data.targets import TargetConfig, draw_targets, target_shapes

HEIGHT, WIDTH = 64, 96
Label = tuple[NDArray[np.float64], bool]

spread = st.tuples(st.floats(-60, 160), st.floats(-60, 130))
whole = st.tuples(st.integers(-40, 140), st.integers(-40, 110))
"""Vertices in the middle of a pixel: there a vertex that is given twice has none, and circles pass through pixels."""
few_places = st.tuples(st.sampled_from([-5, 10, 30, 80, 100]), st.sampled_from([-5, 8, 40, 70]))
"""So that a polygon comes back to where it was, and one lies on another."""


@st.composite
def quads(draw: st.DrawFn) -> NDArray[np.float64]:
    """Words: turned rectangles of any size, also tiny ones, ones across the border and ones beyond it."""
    w, h = draw(st.floats(0.1, 150)), draw(st.floats(0.1, 60))
    angle, x, y = draw(st.floats(0, 7)), draw(st.floats(-50, 140)), draw(st.floats(-50, 110))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    quad = np.array([[0, 0], [w, 0], [w, h], [0, h]]) @ turn.T + (x, y)
    return np.rint(quad) if draw(st.booleans()) else quad


polygons = st.one_of(
    quads(),
    st.lists(spread, min_size=3, max_size=8).map(np.array),
    st.lists(whole, min_size=3, max_size=8).map(lambda p: np.array(p, np.float64)),
    st.lists(few_places, min_size=3, max_size=8).map(lambda p: np.array(p, np.float64)),
)
pictures = st.lists(st.lists(st.tuples(polygons, st.booleans()), max_size=5), min_size=1, max_size=3)


@settings(deadline=None, max_examples=150)
@given(labels=pictures, ratio=st.floats(0.05, 0.95), least=st.integers(1, 12), low=st.floats(0, 0.4))
def test_maps_are_those_of_a_loader(labels: list[list[Label]], ratio: float, least: int, low: float) -> None:
    cfg = TargetConfig(shrink_ratio=ratio, min_text_size=least, thresh_min=low)
    items, expected = [], []
    for label in labels:
        given_polygons, ignore = [p for p, _ in label], np.array([i for _, i in label], bool)
        shapes = target_shapes(given_polygons, ignore, HEIGHT, WIDTH, cfg)
        areas = areas_of(shapes, HEIGHT, WIDTH)
        source = Source(BLACK, np.eye(3)[:2])
        size = HEIGHT, WIDTH
        items.append(CompactItem(source, (WIDTH, HEIGHT), size, cfg, areas, shapes.outlines, (0, 0), ""))
        expected.append(draw_targets(given_polygons, ignore, HEIGHT, WIDTH, cfg))
    made = on_device(collate_compact(items), torch.device("cpu")).targets
    for i, drawn in enumerate(expected):
        for name in ("shrink_map", "shrink_mask", "threshold_map", "threshold_mask"):
            np.testing.assert_array_equal(getattr(made, name)[i].numpy(), getattr(drawn, name), err_msg=name)
