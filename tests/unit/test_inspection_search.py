"""Settings searched on maps of which the best ones are known, and counted as an evaluation counts them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_ray.data.labels import Sample
from ocr_ray.engine.evaluate import ImageResult
from ocr_ray.inspection.look import settings_sentence
from ocr_ray.inspection.search import SEED, Found, Grid, SettingsSearch, counts_of
from ocr_ray.metrics import MatchCounts, match
from ocr_ray.postprocess import PostprocessConfig, boxes_from_map

OWN = PostprocessConfig()


def result(probability: np.ndarray, polygons: list[np.ndarray], size: tuple[int, int] = (128, 96)) -> ImageResult:
    sample = Sample(Path("x.jpg"), tuple(polygons), np.zeros(len(polygons), bool), ("a",) * len(polygons))
    return ImageResult(sample, [], MatchCounts(), probability, *size)


def kernels(*probabilities: float) -> np.ndarray:
    """One below another, of these probabilities."""
    drawn = np.zeros((96, 128), np.float32)
    for i, probability in enumerate(probabilities):
        drawn[10 + 40 * i : 22 + 40 * i, 20:100] = probability
    return drawn


def labelled(probability: np.ndarray, cfg: PostprocessConfig) -> ImageResult:
    """With what `cfg` finds as its labels."""
    return result(probability, [d.polygon.astype(np.float32) for d in boxes_from_map(probability, cfg, 128, 96)])


def searched(results: list[ImageResult]) -> Found | None:
    search = SettingsSearch([r.sample for r in results], OWN)
    for seen in results:
        search.see(seen)
    return search.found()


def test_the_best_threshold_is_found_and_is_the_nearest_of_equals() -> None:
    # A faint text at .52 and something at .42 that is none: any box_thresh between the two is right.
    pictures = [labelled(kernels(0.52, 0.42), PostprocessConfig(box_thresh=0.5)) for _ in range(6)]
    found = searched(pictures)
    assert found is not None
    assert found.changed() == {"box_thresh": 0.5}
    assert found.best == PostprocessConfig(box_thresh=0.5)
    assert (found.searched.own, found.searched.best) == (0, 1)
    assert (found.held_back.own, found.held_back.best) == (0, 1)
    assert found.searched.pictures == found.held_back.pictures == 3
    assert found.is_better
    assert found.gain.is_gain
    assert {value: hmean for value, hmean, _ in found.profiles["box_thresh"]}[0.4] == pytest.approx(2 / 3)
    assert "box_thresh=0.5, gives hmean 1.0000 instead of 0.0000 on the 3 pictures" in settings_sentence(found)
    assert found.at_an_end() == []
    assert found.tried == 8 * 10 * 7 * 2


def test_dilation_is_found() -> None:
    # A column in each third place: only grown kernels join to one.
    probability = np.zeros((96, 128), np.float32)
    probability[30:50, 20:100] = 0.9
    probability[:, 30:100:10] = 0
    found = searched([labelled(probability, PostprocessConfig(use_dilation=True)) for _ in range(4)])
    assert found is not None
    assert found.best.use_dilation
    assert found.held_back.best == 1


def test_a_gain_of_the_searched_half_alone_is_no_gain() -> None:
    order = np.random.default_rng(SEED).permutation(6)
    fooled = {int(i) for i in order[:3]}
    # There the faint kernel is a text; on the other half the strong one alone is.
    pictures = [
        labelled(kernels(0.9, 0.46), PostprocessConfig(box_thresh=0.4 if i in fooled else 0.6)) for i in range(6)
    ]
    found = searched(pictures)
    assert found is not None
    assert found.changed() == {"box_thresh": 0.45}
    assert found.searched.best > found.searched.own
    assert found.held_back.best < found.held_back.own == 1
    assert not found.is_better
    assert "is no better on the 3 pictures of the other" in settings_sentence(found)


def test_own_settings_that_nothing_beats_stand() -> None:
    found = searched([labelled(kernels(0.9, 0.2), OWN) for _ in range(4)])
    assert found is not None
    assert found.best == OWN
    assert not found.is_better
    assert "none of 1,120 settings does better" in settings_sentence(found)


def test_own_settings_outside_the_grid_are_tried_and_other_keys_kept() -> None:
    own = PostprocessConfig(thresh=0.33, box_thresh=0.9, unclip_ratio=3, box_type="poly", max_candidates=7)
    tried = Grid().around(own).settings(own)
    assert own in tried
    assert len(set(tried)) == len(tried) == 9 * 11 * 8 * 2
    assert {(cfg.box_type, cfg.max_candidates) for cfg in tried} == {("poly", 7)}


@pytest.mark.parametrize("pictures", [[], [labelled(kernels(0.9), OWN)], [result(kernels(0.9), [])] * 4])
def test_without_two_halves_or_text_nothing_is_said(pictures: list[ImageResult]) -> None:
    assert searched(pictures) is None
    assert "were not searched" in settings_sentence(None)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    box_type=st.sampled_from(["quad", "poly"]),
    candidates=st.sampled_from([3, 1000]),
)
def test_each_setting_counts_as_an_evaluation_does(seed: int, box_type: str, candidates: int) -> None:
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((96, 128)).astype(np.float32), (0, 0), rng.uniform(1, 4))
    probability = (noise - noise.min()) / np.ptp(noise)
    own = PostprocessConfig(box_type=box_type, max_candidates=candidates)
    grid = Grid((0.3, 0.5), (0.0, 0.4, 0.6, 0.9), (1.0, 1.8)).around(own)
    regions = boxes_from_map(probability, PostprocessConfig(thresh=0.4, box_thresh=0.3), 250, 180)
    seen = result(probability, [r.polygon.astype(np.float32) for r in regions], (250, 180))
    seen.sample.ignore[::3] = True
    expected = []
    for cfg in grid.settings(own):
        found = boxes_from_map(probability, cfg, 250, 180)
        counts = match(seen.sample.polygons, seen.sample.ignore, [d.polygon for d in found])
        expected.append([counts.matched, counts.ground_truth, counts.detected])
    assert json.dumps(counts_of(seen, own, grid).tolist()) == json.dumps(expected)
