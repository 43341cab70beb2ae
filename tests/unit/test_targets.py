import numpy as np
import pytest

from ocr_ray.data.targets import TargetConfig, draw_targets
from ocr_ray.errors import ConfigError

WORD = np.array([[10, 10], [110, 12], [108, 42], [9, 40]], np.float64)
LOW = np.array([[20, 50], [60, 50], [60, 55], [20, 55]], np.float64)


def test_a_worked_example() -> None:
    """Two words on 64x128 pixels, the second under 8 pixels high; the numbers were worked out by other code."""
    drawn = draw_targets([WORD, LOW], np.zeros(2, bool), 64, 128, TargetConfig())
    assert drawn.threshold_map.dtype == np.float32
    assert drawn.threshold_map.sum() == pytest.approx(3516.8477, abs=1e-2)
    assert drawn.threshold_mask.sum() == 6297
    for (y, x), value in {
        (0, 0): 0.3,
        (10, 10): 0.7,
        (10, 60): 0.65871,
        (15, 60): 0.53485,
        (25, 60): 0.3,
        (40, 60): 0.65746,
        (50, 40): 0.7,
        (52, 40): 0.3,
    }.items():
        assert drawn.threshold_map[y, x] == pytest.approx(value, abs=1e-5)
    assert drawn.shrink_map.sum() == 886
    rows, columns = np.nonzero(drawn.shrink_map)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (19, 99, 20, 32)
    assert (drawn.shrink_mask == 0).sum() == 246
    assert drawn.ignore.tolist() == [False, True]


def test_without_text_all_is_background() -> None:
    drawn = draw_targets([], np.zeros(0, bool), 32, 64, TargetConfig())
    assert drawn.shrink_map.shape == (32, 64)
    assert not drawn.shrink_map.any()
    assert drawn.shrink_mask.all()
    assert not drawn.threshold_mask.any()
    assert (drawn.threshold_map == np.float32(0.3)).all()


def test_an_ignored_word_is_only_masked() -> None:
    drawn = draw_targets([WORD], np.ones(1, bool), 64, 128, TargetConfig())
    assert not drawn.shrink_map.any()
    assert drawn.shrink_mask[25, 60] == 0
    assert not drawn.threshold_mask.any()


@pytest.mark.parametrize(
    "polygon",
    [
        np.array([[500, 10], [560, 10], [560, 40], [500, 40]], np.float64),
        np.array([[-500, -500], [-400, -500], [-400, -480], [-500, -480]], np.float64),
        np.array([[20, 90], [60, 90], [60, 110], [20, 110]], np.float64),
        np.array([[2.0**20, 0], [2.0**20 + 50, 0], [2.0**20 + 50, 30], [2.0**20, 30]]),
    ],
)
@pytest.mark.parametrize("ignored", [False, True])
def test_a_word_beyond_the_picture_is_as_if_absent(polygon: np.ndarray, ignored: bool) -> None:
    drawn = draw_targets([polygon], np.array([ignored]), 64, 128, TargetConfig())
    assert not drawn.shrink_map.any()
    assert drawn.shrink_mask.all()
    assert not drawn.threshold_mask.any()


def test_a_word_around_the_whole_picture() -> None:
    drawn = draw_targets(
        [np.array([[-1e6, -1e6], [1e6, -1e6], [1e6, 1e6], [-1e6, 1e6]])], np.array([False]), 64, 128, TargetConfig()
    )
    assert drawn.threshold_mask.all()
    assert drawn.shrink_map[32, 64] == 1


@pytest.mark.parametrize(
    "points",
    [
        [[5, 5], [5, 5], [5, 5], [5, 5]],
        [[5.1, 5.1], [5.2, 5.1], [5.2, 5.2], [5.1, 5.2]],
        [[5, 5], [40, 5], [40, 5], [5, 5]],
        [[5, 5], [45, 25], [45, 5], [5, 25]],
    ],
)
def test_degenerate_words_do_no_harm(points: list[list[float]]) -> None:
    drawn = draw_targets([np.array(points, np.float64)], np.array([False]), 64, 128, TargetConfig())
    assert np.isfinite(drawn.threshold_map).all()
    assert not (drawn.shrink_map.any() and drawn.ignore[0])


def test_every_number_is_live() -> None:
    def maps(cfg: TargetConfig) -> bytes:
        drawn = draw_targets([WORD, LOW], np.zeros(2, bool), 64, 128, cfg)
        return drawn.shrink_map.tobytes() + drawn.shrink_mask.tobytes() + drawn.threshold_map.tobytes()

    for cfg in (
        TargetConfig(shrink_ratio=0.5),
        TargetConfig(thresh_min=0.2),
        TargetConfig(thresh_max=0.8),
        TargetConfig(min_text_size=4),
    ):
        assert maps(cfg) != maps(TargetConfig())


def test_configs_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.targets\.shrink_ratio"):
        TargetConfig(shrink_ratio=1)
    with pytest.raises(ConfigError, match=r"data\.targets\.thresh_min"):
        TargetConfig(thresh_min=0.8)
