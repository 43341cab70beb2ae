"""A word's outline is where its ink is."""

from itertools import pairwise

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_ray.data.lettering import INK, draw_word

SIDE = 700


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    height=st.floats(12, 48),
    angle=st.floats(-np.pi, np.pi),
    bend=st.one_of(st.just(0.0), st.floats(-1.3, 1.3).filter(lambda b: abs(b) > 0.05)),
)
def test_the_outline_holds_all_the_ink_and_no_more(seed: int, height: float, angle: float, bend: float) -> None:
    word = draw_word(np.random.default_rng(seed), height, angle, bend)
    canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
    word.paint(canvas, SIDE // 2, SIDE // 2, np.full(3, 255, np.float32))
    ink = canvas[..., 0] > 2 * INK
    assert abs(word.strip.shape[0] - height) <= 0.12 * height + 2  # sizes of a face go in whole steps
    outline = word.outline(16) + np.float32(SIDE // 2)
    # Half a pixel of smoothing, and half a one of rounding to fillPoly's grid.
    assert not (ink & ~grown(outline, 1)).any()
    # On each side of the upright word there is ink at its edge, if faint, so there is along each side of the outline.
    near = np.argwhere(ink & ~grown(outline, -4))[:, ::-1]
    top, bottom = np.array_split(outline, 2)
    for side in (top, bottom, np.stack([bottom[-1], top[0]]), np.stack([top[-1], bottom[0]])):
        points = np.concatenate([np.linspace(a, b, 60) for a, b in pairwise(side)])
        assert np.linalg.norm(near[None] - points[:, None], axis=2).min() <= 2.5


def grown(outline: np.ndarray, pixels: int) -> np.ndarray:
    """The outline's inside, `pixels` larger on each side, or smaller."""
    inside = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(inside, [np.rint(outline).astype(np.int32)], 1)
    if pixels:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(pixels) + 1,) * 2)
        inside = cv2.dilate(inside, kernel) if pixels > 0 else cv2.erode(inside, kernel)
    return inside.astype(bool)
