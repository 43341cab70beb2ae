import cv2
import numpy as np
import pytest

from ocr_ray.errors import ConfigError
from ocr_ray.postprocess import PostprocessConfig, boxes_from_map


def worked_example() -> np.ndarray:
    """A turned block, a strip of 3 rows, a small square, and a block that is too faint."""
    probability = np.zeros((160, 320), np.float32)
    cv2.fillPoly(probability, [np.array([[50, 60], [200, 70], [198, 95], [48, 85]])], 0.9)
    probability[120:123, 20:60] = 0.8
    probability[10:14, 10:14] = 0.95
    probability[130:150, 100:180] = 0.5
    return probability


def found(cfg: PostprocessConfig, probability: np.ndarray | None = None) -> list[list[list[int]]]:
    probability = worked_example() if probability is None else probability
    return [d.polygon.tolist() for d in boxes_from_map(probability, cfg, 640, 320)]


@pytest.mark.parametrize("score_mode", ["fast", "slow"])
def test_the_worked_example(score_mode: str) -> None:
    assert found(PostprocessConfig(score_mode=score_mode)) == [
        [[66, 82], [436, 106], [428, 226], [58, 202]],
        [[18, 18], [28, 18], [28, 28], [18, 28]],
    ]


def test_the_worked_example_dilated_grows_right_and_down() -> None:
    assert found(PostprocessConfig(use_dilation=True)) == [
        [[66, 82], [438, 106], [430, 228], [58, 204]],
        [[18, 18], [32, 18], [32, 32], [18, 32]],
    ]


def test_a_score_equal_to_box_thresh_passes_and_a_probability_equal_to_thresh_does_not() -> None:
    probability = np.zeros((64, 64), np.float32)
    probability[10:30, 10:50] = 0.5
    assert len(found(PostprocessConfig(thresh=0.3, box_thresh=0.5), probability)) == 1
    assert len(found(PostprocessConfig(thresh=0.3, box_thresh=0.51), probability)) == 0
    assert len(found(PostprocessConfig(thresh=0.5, box_thresh=0.1), probability)) == 0


def test_only_the_first_candidates_are_looked_at() -> None:
    both = found(PostprocessConfig(box_thresh=0.4))
    # OpenCV lists contours from below: the faint block comes first, then the strip, which is too thin.
    assert len(both) == 3
    assert found(PostprocessConfig(box_thresh=0.4, max_candidates=1)) == both[:1]


def test_polygons_follow_a_bent_text_where_a_quad_cannot() -> None:
    probability = np.zeros((200, 300), np.float32)
    cv2.ellipse(probability, (150, 190), (120, 120), 0, 200, 340, 1.0, 12)
    (quad,) = boxes_from_map(probability, PostprocessConfig(score_mode="slow"), 300, 200)
    (polygon,) = boxes_from_map(probability, PostprocessConfig(box_type="poly"), 300, 200)
    assert quad.polygon.shape == (4, 2)
    assert len(polygon.polygon) > 8
    assert cv2.contourArea(polygon.polygon) < 0.6 * cv2.contourArea(quad.polygon)
    assert (np.ptp(polygon.polygon, axis=0) <= np.ptp(quad.polygon, axis=0) + 2).all()


def test_boxes_end_at_the_border_of_the_picture() -> None:
    (box,) = boxes_from_map(np.ones((32, 64), np.float32), PostprocessConfig(), 200, 100)
    assert box.polygon.tolist() == [[0, 0], [200, 0], [200, 100], [0, 100]]
    assert box.score == 1.0


def test_nothing_is_found_in_what_is_not_a_number() -> None:
    assert boxes_from_map(np.full((32, 32), np.nan, np.float32), PostprocessConfig(), 32, 32) == []


def test_a_batch_of_maps_is_refused() -> None:
    with pytest.raises(ValueError, match="map"):
        boxes_from_map(np.zeros((1, 32, 32), np.float32), PostprocessConfig(), 32, 32)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"thresh": 0.0}, "thresh"),
        ({"box_thresh": 1.2}, "box_thresh"),
        ({"unclip_ratio": 0.0}, "unclip_ratio"),
        ({"max_candidates": 0}, "max_candidates"),
        ({"box_type": "poly", "score_mode": "slow"}, "score_mode"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=f"postprocess.{named}"):
        PostprocessConfig(**values)
