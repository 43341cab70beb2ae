import numpy as np
import pytest
import torch

from ocr_ray.data.normalize import NormalizeConfig, normalize
from ocr_ray.data.resize import LimitType, ResizeConfig, resize_for_test, resized_shape
from ocr_ray.errors import ConfigError, DataError
from ocr_ray.typed import with_values


@pytest.mark.parametrize(
    ("height", "width", "limit", "limit_type", "expected"),
    [
        (720, 1280, 736, "min", (736, 1312)),
        (2000, 3000, 736, "min", (1984, 3008)),  # large pictures are not reduced; 62.5 goes to the even 62
        (720, 1280, 960, "max", (544, 960)),  # 540 / 32 = 16.875
        (300, 400, 960, "max", (288, 384)),  # small ones are not enlarged; 9.375, and 12.5 goes to 12
        (300, 400, 960, "resize_long", (704, 960)),  # 720 / 32 = 22.5
        (10, 400, 960, "max", (32, 384)),
        (300, 400, 960, "resize_long_128", (768, 1024)),
    ],
)
def test_sides_by_hand(height: int, width: int, limit: int, limit_type: LimitType, expected: tuple[int, int]) -> None:
    assert resized_shape(height, width, ResizeConfig(limit, limit_type)) == expected


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"limit_side_len": 0}, "limit_side_len"),
        ({"limit_type": "mean"}, "limit_type"),
        ({"keep_ratio": True}, "keep_ratio"),
        ({"image_shape": [100, 640]}, "image_shape"),
        ({"image_shape": [0, 640]}, "image_shape"),
    ],
)
def test_a_wrong_rule_is_named(values: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        with_values(ResizeConfig(), values, "test")


def test_each_rule_has_words_of_its_own() -> None:
    rules = [ResizeConfig(limit_type=t) for t in ("min", "max", "resize_long", "resize_long_128")]
    rules += [ResizeConfig(image_shape=(736, 1280)), ResizeConfig(image_shape=(736, 1280), keep_ratio=True)]
    assert len({str(rule) for rule in rules}) == len(rules)
    assert str(ResizeConfig()) == "shortest side at least 736"


def test_a_hair_line_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(DataError, match=r"a\.png: 3000x1 pixels"):
        resize_for_test(np.zeros((1, 3000, 3), np.uint8), ResizeConfig(), "a.png")


def test_normalize_takes_pixels_alone() -> None:
    for wrong in (torch.zeros(1, 3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            normalize(wrong, NormalizeConfig())


def test_normalize_keeps_the_channels_in_the_order_they_come() -> None:
    pixel = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    cfg = NormalizeConfig(mean=(0.0, 0.5, 0.25), std=(1.0, 0.5, 0.25))
    expected = torch.tensor([0.0, (128 / 255 - 0.5) / 0.5, 3.0])
    torch.testing.assert_close(normalize(pixel, cfg).flatten(), expected, rtol=0, atol=1e-6)


def test_a_deviation_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"normalize\.std"):
        NormalizeConfig(std=(0.2, 0.0, 0.2))
