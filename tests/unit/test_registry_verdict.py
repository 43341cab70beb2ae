"""Promoted or not, from counts made by hand; and what measuring counts."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ocr_ray.data.labels import Sample, read_labels
from ocr_ray.engine.evaluate import EvalConfig, evaluate
from ocr_ray.errors import ConfigError, DataError
from ocr_ray.evidence import Counts
from ocr_ray.models.onnx_detector import OnnxDetector
from ocr_ray.registry.measure import Measured, measure
from ocr_ray.registry.reader import OnnxReader
from ocr_ray.registry.slices import SLICES, Slice
from ocr_ray.registry.verdict import Check, Limits, Verdict, judge
from tests.bright import CARD, write_detector, write_pictures


def counts(matched: int, pictures: int = 40, labelled: int = 4) -> Counts:
    return np.tile(np.array([matched, labelled, labelled], np.int64), (pictures, 1))


def measured(matched: int, ms: float = 50, **slices: Counts) -> Measured:
    by_slice: dict[Slice, Counts] = {what: slices.get(what, counts(3, 10)) for what in SLICES}
    return Measured(counts(matched), by_slice, (ms, ms, 10 * ms))


def check(verdict: Verdict, name: str) -> Check:
    return next(c for c in verdict.checks if c.name == name)


def failed(verdict: Verdict) -> list[str]:
    return [c.name for c in verdict.checks if c.passed is False]


def test_what_is_better_everywhere_is_promoted() -> None:
    verdict = judge(measured(3), measured(2), Limits())
    assert verdict.promoted
    assert failed(verdict) == []
    assert check(verdict, "hmean").difference == "+.2500 (+.2500 to +.2500)"
    assert verdict.tags()["promotion"] == "promoted"


def test_what_is_equal_or_worse_is_refused() -> None:
    for matched in (2, 1):
        verdict = judge(measured(matched), measured(2), Limits())
        assert failed(verdict) == ["hmean"]
        assert not verdict.promoted


def test_a_gain_within_the_noise_of_pictures_is_refused() -> None:
    """More hits in all, but on 21 pictures of 40 it gains and on 19 it loses."""
    version, champion = counts(2), counts(2)
    version[:21, 0], version[21:, 0] = 3, 1
    slices = measured(2).by_slice
    verdict = judge(Measured(version, slices, (50,)), Measured(champion, slices, (50,)), Limits())
    assert check(verdict, "hmean").difference.startswith("+")
    assert failed(verdict) == ["hmean"]


def test_latency_is_held_to_the_budget_or_to_the_champions() -> None:
    assert failed(judge(measured(3, ms=61), measured(2), Limits(most_ms=60))) == ["latency"]
    assert failed(judge(measured(3, ms=59), measured(2, ms=10), Limits(most_ms=60))) == []
    assert failed(judge(measured(3, ms=63), measured(2, ms=50), Limits())) == ["latency"]
    assert failed(judge(measured(3, ms=62), measured(2, ms=50), Limits())) == []


@pytest.mark.parametrize("what", SLICES)
def test_a_slice_that_falls_by_more_than_the_limit_refuses(what: Slice) -> None:
    champion = measured(2, **{what: counts(4, 10)})  # 40 regions, all found
    lost = counts(4, 10)
    lost[0, 0] = 3  # one of them missed: .025 less
    version = measured(3, **{what: lost})
    verdict = judge(version, champion, Limits())
    assert failed(verdict) == [f"slice {what}"]
    assert verdict.tags()[f"promotion.slice_{what}.verdict"] == "FAILED"
    found = f"{verdict.tags()[f'promotion.slice_{what}']}, -.0250"
    assert f"slice {what}: {found}" in verdict.why
    assert judge(version, champion, Limits(most_lost=0.03)).promoted


def test_a_slice_of_few_regions_is_shown_and_not_judged() -> None:
    verdict = judge(measured(3, dark=counts(0, 7)), measured(2, dark=counts(4, 7)), Limits())  # 28 regions
    assert verdict.promoted
    assert check(verdict, "slice dark").passed is None
    assert check(verdict, "slice dark").difference.startswith("-1.0000")
    nothing = np.zeros((0, 3), np.int64)
    empty = judge(measured(3, dense=nothing), measured(2, dense=nothing), Limits())
    assert empty.promoted
    assert check(empty, "slice dense").found == "no regions"


def test_the_first_version_has_to_find_something_and_to_be_fast_enough() -> None:
    assert judge(measured(1), None, Limits()).promoted
    assert failed(judge(measured(0), None, Limits())) == ["hmean"]
    assert failed(judge(measured(1, ms=61), None, Limits(most_ms=60))) == ["latency"]


def test_limits_are_named_as_typed() -> None:
    with pytest.raises(ConfigError, match="--most-ms: expected a number above 0, found 0"):
        Limits(most_ms=0)
    with pytest.raises(ConfigError, match="--most-lost: expected a number from 0 to 1, found 2"):
        Limits(most_lost=2)


def test_measuring_counts_as_evaluation_does(tmp_path: Path) -> None:
    samples = read_labels(write_pictures(tmp_path / "set", 5))
    seeing, blind = (write_detector(tmp_path / f"{limit}.onnx", limit) for limit in (0.4, 0.8))
    (all_, half), unreadable = measure([OnnxReader(seeing, 1), OnnxReader(blind, 1)], samples)
    assert unreadable == ()
    assert all_.counts.tolist() == [[2, 2, 2]] * 5
    assert half.counts.tolist() == [[1, 2, 1]] * 5
    evaluation = evaluate(
        OnnxDetector(blind),
        samples,
        CARD.normalize,
        EvalConfig(CARD.resize, CARD.postprocess),
        torch.device("cpu"),
    )
    assert half.hmean == pytest.approx(evaluation.score.hmean)
    assert len(all_.milliseconds) == 5


def test_only_a_slices_own_regions_count_in_it(tmp_path: Path) -> None:
    """Two regions, one of them small: what is found of the other is neither hit nor miss there."""
    image = np.full((96, 160, 3), 200, np.uint8)
    image[20:38, 20:100] = image[60:78, 20:100] = 255
    cv2.imwrite(str(tmp_path / "a.png"), image)
    flat = np.array([(10, 85), (150, 85), (150, 86), (10, 86)], np.float32)
    whole = np.array([(9, 9), (111, 9), (111, 49), (9, 49)], np.float32)
    dense = np.array([(9, 49), (111, 49), (111, 89), (9, 89)], np.float32)
    labels = Sample(tmp_path / "a.png", (whole, dense, flat), np.zeros(3, bool), ("a", "b", "c"))
    ((found,), _) = measure([OnnxReader(write_detector(tmp_path / "d.onnx", 0.9), 1)], [labels])
    assert found.counts.tolist() == [[2, 3, 2]]
    assert found.by_slice["small"].tolist() == [[0, 1, 0]]
    assert {what: len(c) for what, c in found.by_slice.items() if what != "small"} == dict.fromkeys(
        ("rotated", "dense", "dark"), 0
    )


def test_pictures_that_cannot_be_read_are_left_out_on_both_sides(tmp_path: Path) -> None:
    samples = read_labels(write_pictures(tmp_path / "set", 3))
    (tmp_path / "set" / "0.png").write_bytes(b"no picture")
    reader = OnnxReader(write_detector(tmp_path / "d.onnx", 0.4), 1)
    both, unreadable = measure([reader, reader], samples)
    assert [len(found.counts) for found in both] == [2, 2]
    assert len(unreadable) == 1
    with pytest.raises(DataError, match="none of 1 pictures could be read"):
        measure([reader], samples[:1])
