"""Real weights on real photographs: the counts that the reference's own metric gives for them.

The whole validation part takes a minute a row: it runs with OCR_RAY_FULL=1. The first pictures of each run always.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ocr_ray.data.labels import read_labels
from ocr_ray.data.resize import ResizeConfig
from ocr_ray.engine.evaluate import EvalConfig, evaluate
from ocr_ray.metrics import Score
from ocr_ray.model_card import load_detector

STUDENT = "ppocrv3_det_student_real.npz"
DB_MV3 = "paddle_db_mv3_ic15_best.pdparams"
SHORTEST_736 = ResizeConfig(736, "min")
LONGEST_960 = ResizeConfig(960, "resize_long")
LONGEST_448 = ResizeConfig(448, "max")

FIRST = 6
# Of the first pictures, out of the runs over all that gave the recorded figures.
PARTS = [
    (STUDENT, "icdar2015", SHORTEST_736, (23, 21, 12)),
    (STUDENT, "icdar2015", LONGEST_960, (23, 20, 10)),
    (DB_MV3, "icdar2015", SHORTEST_736, (23, 21, 17)),
    (STUDENT, "synth_text", LONGEST_448, (33, 26, 23)),
]
# weights, data, rule, (regions, detections, matches), hmean to four digits
WHOLE = [
    (STUDENT, "icdar2015", SHORTEST_736, (862, 615, 353), 0.4780),
    (STUDENT, "icdar2015", LONGEST_960, (862, 537, 312), 0.4460),
    (DB_MV3, "icdar2015", SHORTEST_736, (862, 730, 524), 0.6583),
    (STUDENT, "synth_text", LONGEST_448, (272, 208, 179), 0.7458),
    (STUDENT, "synth_text", SHORTEST_736, (272, 215, 194), 0.7967),
]


@pytest.mark.parametrize(("weights", "data", "rule", "counts"), PARTS)
def test_first_pictures_give_the_counts_of_the_whole_run(
    weights: str,
    data: str,
    rule: ResizeConfig,
    counts: tuple[int, int, int],
    golden_file: Callable[[str], Path],
    data_dir: Path,
) -> None:
    score = score_of(golden_file(weights), data_dir / data, rule, FIRST)
    assert (score.ground_truth, score.detected, score.matched) == counts


@pytest.mark.skipif("OCR_RAY_FULL" not in os.environ, reason="takes minutes, set OCR_RAY_FULL=1")
@pytest.mark.parametrize(("weights", "data", "rule", "counts", "hmean"), WHOLE)
def test_all_pictures_give_the_recorded_figures(
    weights: str,
    data: str,
    rule: ResizeConfig,
    counts: tuple[int, int, int],
    hmean: float,
    golden_file: Callable[[str], Path],
    data_dir: Path,
) -> None:
    score = score_of(golden_file(weights), data_dir / data, rule, None)
    assert (score.ground_truth, score.detected, score.matched) == counts
    assert round(score.hmean, 4) == hmean


def score_of(weights: Path, data: Path, rule: ResizeConfig, first: int | None) -> Score:
    if not data.is_dir():
        pytest.skip(f"no photographs at {data}")
    detector, card, _ = load_detector(weights)
    samples = read_labels(data / "val_label.txt")[:first]
    evaluation = evaluate(detector, samples, card.normalize, EvalConfig(resize=rule), torch.device("cpu"))
    assert not evaluation.unreadable
    return evaluation.score
