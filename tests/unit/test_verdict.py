"""Who wins a confirmation, which of its files that is, and how it is told."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from ocr_ray.confirm.verdict import Arm, Confirmation, Kind, judge
from ocr_ray.errors import RunError
from ocr_ray.evidence import Counts

PICTURES, REGIONS = 200, 4
SEEDS = (1025, 1026, 1027)


def counts(*shares: float) -> Counts:
    """For each seed: pictures of four regions, of which this share is found, spread evenly over the pictures."""
    found = [
        np.diff(np.floor(share * REGIONS * np.arange(PICTURES + 1)), prepend=0)[1:].astype(np.int64) for share in shares
    ]
    four = np.full(PICTURES, REGIONS)
    return np.stack([np.stack([matched, four, four], axis=1) for matched in found])


def arm(kind: Kind, name: str, *shares: float, reason: str = "") -> Arm:
    files = tuple(Path(f"{name}-{i}.safetensors") for i in range(len(shares)))
    return Arm(kind, name, counts(*shares) if shares else np.zeros((0, 0, 3), np.int64), files, reason=reason)


START = arm("start", "untouched start", 0.40)
DEFAULT = arm("default", "default config", 0.50, 0.51, 0.49)
BETTER = arm("candidate", "trial 3", 0.60, 0.612, 0.59)
BEST_BY_LUCK = arm("candidate", "trial 2", 0.80, 0.45, 0.70)


def told(found: Confirmation) -> str:
    text = io.StringIO()
    Console(file=text, width=200).print(found.table())
    return text.getvalue()


def test_the_candidate_that_beats_both_controls_wins_over_one_that_was_lucky() -> None:
    found = judge([BEST_BY_LUCK, BETTER, DEFAULT, START], SEEDS)
    assert found.winner.arm is BETTER
    lucky = next(f for f in found.findings if f.arm is BEST_BY_LUCK)
    assert lucky.mean > found.winner.mean
    assert lucky.over_default is not None
    assert not lucky.over_default.is_gain
    assert found.sentence.startswith("trial 3 wins: mean hmean 0.600")
    assert "over the default config and +.2" in found.sentence
    assert found.tags()["winner.kind"] == "candidate"
    assert found.tags()["confirm.seeds"] == "1025 1026 1027"
    metrics = found.metrics()
    assert metrics["confirm.low"] < metrics["confirm.mean"] < metrics["confirm.high"]
    assert 0 < metrics["confirm.over_default.low"] < metrics["confirm.over_default.difference"]
    assert {"confirm.over_start.high", "confirm.over_start.p", "confirm.spread"} <= metrics.keys()


def test_when_nothing_beats_the_default_beyond_noise_it_is_the_answer() -> None:
    found = judge([BEST_BY_LUCK, DEFAULT, START], SEEDS)
    assert found.winner.arm is DEFAULT
    assert found.sentence.startswith("nothing beat the default config beyond noise: its mean hmean is 0.5")
    assert "trial 2, the best beside it, differs by +." in found.sentence
    assert "confirm.over_default.low" not in found.metrics()


def test_when_nothing_beats_the_untouched_start_it_is_the_answer() -> None:
    high = arm("start", "untouched start", 0.55)
    found = judge([BEST_BY_LUCK, DEFAULT, high], SEEDS)
    assert found.winner.arm is high
    assert found.winner.file == Path("untouched start-0.safetensors")
    assert found.sentence.startswith("nothing beat the untouched start beyond noise: its hmean is 0.55")
    assert {"confirm.mean", "confirm.low", "confirm.high"} == found.metrics().keys()


def test_what_beats_the_default_and_not_the_start_is_not_the_answer() -> None:
    """The start was beaten by nothing, so it is."""
    high = arm("start", "untouched start", 0.61)
    assert judge([BETTER, DEFAULT, high], SEEDS).winner.arm is high


def test_a_start_that_only_the_default_beats_leaves_the_default() -> None:
    wild = arm("candidate", "trial 4", 0.9, 0.2, 0.7)
    found = judge([wild, DEFAULT, START], SEEDS)
    assert found.winner.arm is DEFAULT


def test_without_weights_to_start_from_the_default_is_the_only_control() -> None:
    found = judge([BETTER, DEFAULT], SEEDS)
    assert found.winner.arm is BETTER
    assert "untouched" not in told(found)
    assert judge([BEST_BY_LUCK, DEFAULT], SEEDS).winner.arm is DEFAULT
    assert judge([DEFAULT], SEEDS).sentence.endswith("over 3 seeds.")


def test_an_arm_that_failed_is_out_and_stands_in_nobodys_way() -> None:
    gone = arm("default", "default config", reason="seed 1025: loss is not finite at step 3")
    found = judge([BETTER, gone, START], SEEDS)
    assert found.winner.arm is BETTER
    assert "default config  " in told(found)
    assert "failed: seed 1025: loss is not finite" in told(found)
    alone = judge([BETTER, gone], SEEDS)
    assert alone.winner.arm is BETTER
    assert "no control came through" in alone.sentence
    broken = arm("candidate", "trial 3", reason="seed 1026: worker 0: lost")
    assert judge([broken, DEFAULT, START], SEEDS).winner.arm is DEFAULT
    with pytest.raises(RunError, match="no run of the confirmation came through: trial 3: seed 1026"):
        judge([broken, gone], SEEDS)


def test_the_median_run_is_handed_out() -> None:
    found = judge([BETTER, DEFAULT], SEEDS)
    assert found.winner.file == Path("trial 3-0.safetensors")  # .60, between .59 and .612
    two = judge([arm("candidate", "trial 3", 0.61, 0.60), arm("default", "default config", 0.5, 0.5)])
    assert two.winner.file == Path("trial 3-1.safetensors")


def test_winner_and_other_controls_go_to_the_test() -> None:
    assert {key: name for key, (name, _) in judge([BETTER, DEFAULT, START]).files().items()} == {
        "winner": "trial 3",
        "default": "default config",
        "start": "untouched start",
    }
    assert judge([DEFAULT, START]).files().keys() == {"winner", "start"}


def test_the_table_has_controls_first_and_marks_the_winner() -> None:
    head, start, default, *rows = told(judge([BEST_BY_LUCK, BETTER, DEFAULT, START], SEEDS)).splitlines()
    assert head.split("  ")[0] == "confirmed"
    assert "over the default config" in head
    assert "over the untouched start" in head
    assert start.split() == ["untouched", "start", "0.4000"]
    assert default.startswith("default config")
    assert "± 0.0100" in default
    assert [row.split("  ")[0] for row in rows] == ["trial 2", "trial 3 *"]
    assert "<.001" in rows[1]
