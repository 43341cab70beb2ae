"""f_det_metric: matches per picture, and precision, recall, hmean of each and of all."""

import json
from pathlib import Path

from ocr_ray.metrics import MatchCounts, Score, match


def test_counts_of_each_picture_and_figures_of_all_are_equal(golden: Path) -> None:
    vectors = json.loads((golden / "f_det_metric.json").read_text())
    assert vectors["cases"]
    total = MatchCounts()
    for i, case in enumerate(vectors["cases"]):
        counts = match(case["gt"], case["ignore"], case["det"])
        expected = [case["per_image"][key] for key in ("gtCare", "detCare", "detMatched")]
        assert [counts.ground_truth, counts.detected, counts.matched] == expected, i
        assert figures(counts) == case["metric_alone"], i
        total = total + counts
    assert figures(total) == vectors["combined_all"]


def figures(counts: MatchCounts) -> dict[str, float]:
    score = Score.from_counts(counts)
    return {"precision": score.precision, "recall": score.recall, "hmean": score.hmean}
