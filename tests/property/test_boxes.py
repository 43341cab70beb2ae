"""What must hold for the boxes of any map."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon

from ocr_ray import postprocess
from ocr_ray.postprocess import PostprocessConfig, boxes_from_map

configs = st.builds(
    PostprocessConfig,
    thresh=st.sampled_from([0.2, 0.3, 0.5]),
    box_thresh=st.sampled_from([0.0, 0.5, 0.7]),
    unclip_ratio=st.floats(0.5, 2.5),
    use_dilation=st.booleans(),
    box_type=st.sampled_from(["quad", "poly"]),
)


def blobs(seed: int) -> np.ndarray:
    """Smooth noise: kernels of all shapes and sizes, down to single pixels, some with holes."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((96, 128)).astype(np.float32), (0, 0), rng.uniform(0.5, 4))
    return (noise - noise.min()) / np.ptp(noise)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), cfg=configs)
def test_boxes_lie_in_the_picture_and_reach_their_score(seed: int, cfg: PostprocessConfig) -> None:
    for detection in boxes_from_map(blobs(seed), cfg, 250, 180):
        assert detection.polygon.dtype == np.int32
        assert (detection.polygon >= 0).all()
        assert (detection.polygon <= (250, 180)).all()
        assert cfg.box_thresh <= detection.score <= 1
        assert len(detection.polygon) == 4 or cfg.box_type == "poly"


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), cfg=configs)
def test_leaving_out_tiny_contours_early_changes_nothing(seed: int, cfg: PostprocessConfig) -> None:
    if cfg.box_type == "poly":
        cfg = PostprocessConfig(cfg.thresh, cfg.box_thresh, cfg.unclip_ratio, use_dilation=cfg.use_dilation)
    early = boxes_from_map(blobs(seed), cfg, 128, 96)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postprocess, "_is_tiny", lambda _: False)
        late = boxes_from_map(blobs(seed), cfg, 128, 96)
    assert [d.polygon.tolist() for d in early] == [d.polygon.tolist() for d in late]


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(12, 60),
    height=st.integers(6, 30),
    angle=st.floats(-40, 40),
    unclip_ratio=st.floats(0.5, 2.5),
)
def test_a_kernel_lies_within_its_box_which_grew_as_far_as_it_should(
    width: int, height: int, angle: float, unclip_ratio: float
) -> None:
    kernel = cv2.boxPoints(((64, 48), (width, height), angle))
    probability = np.zeros((96, 128), np.float32)
    cv2.fillPoly(probability, [np.rint(kernel).astype(np.int32)], 1.0)
    (found,) = boxes_from_map(probability, PostprocessConfig(unclip_ratio=unclip_ratio), 128, 96)
    box = Polygon(found.polygon)
    # Corners are rounded or truncated to whole pixels three times on the way.
    assert box.buffer(2).contains(Polygon(kernel).intersection(Polygon([(0, 0), (128, 0), (128, 96), (0, 96)])))
    distance = width * height * unclip_ratio / (2 * (width + height))
    if (found.polygon > 0).all() and (found.polygon < (128, 96)).all():  # else the picture's border cut it
        expected = (width + 2 * distance) * (height + 2 * distance)
        slack = 3 * 2 * (width + height + 4 * distance)
        assert abs(box.area - expected) < slack


def test_a_map_of_the_half_size_gives_the_box_of_the_whole() -> None:
    probability = np.zeros((96, 128), np.float32)
    probability[20:60, 20:100] = 1
    (whole,) = boxes_from_map(probability, PostprocessConfig(), 128, 96)
    (half,) = boxes_from_map(probability[::2, ::2], PostprocessConfig(), 128, 96)
    assert np.abs(whole.polygon - half.polygon).max() <= 4
