"""Differences beyond noise: on counts whose truth is known, since they are drawn from it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from ocr_ray.evidence import Counts, compare, f_measures, hmean_of, signed_rank, spread_of
from ocr_ray.metrics import MatchCounts, Score


@st.composite
def counts(draw: st.DrawFn, runs: int | None = None, pictures: int | None = None) -> Counts:
    shape = (runs or draw(st.integers(1, 4)), pictures or draw(st.integers(1, 12)))
    labelled = draw(st.lists(st.integers(0, 6), min_size=shape[1], max_size=shape[1]))
    rows = []
    for _ in range(shape[0]):
        found = [draw(st.integers(0, 6)) for _ in labelled]
        matched = [draw(st.integers(0, min(pair))) for pair in zip(labelled, found, strict=True)]
        rows.append(list(zip(matched, labelled, found, strict=True)))
    return np.array(rows, np.int64)


def simulated(
    rng: np.random.Generator, runs: int, pictures: int, recall: float, seed_sd: float, shared: NDArray[np.float64]
) -> Counts:
    """Runs that find regions by chance; `shared` is each region's difficulty in [0, 1), the same for all runs."""
    of_seed = recall + rng.normal(0, seed_sd, runs)
    regions = shared.shape[1]
    luck = rng.random((runs, pictures, regions))
    matched = ((0.7 * shared + 0.3 * luck) < of_seed[:, None, None]).sum(axis=2)
    labelled = np.full_like(matched, regions)
    detected = matched + rng.poisson(0.5, matched.shape)
    return np.stack([matched, labelled, detected], axis=2).astype(np.int64)


@settings(deadline=None)
@given(counts())
def test_hmean_is_that_of_the_score(given_counts: Counts) -> None:
    for run, hmean in zip(given_counts, hmean_of(given_counts), strict=True):
        matched, labelled, detected = run.sum(axis=0)
        assert hmean == pytest.approx(Score.from_counts(MatchCounts(labelled, detected, matched)).hmean)


@given(counts())
def test_a_pictures_f_measure_is_its_own_hmean_and_1_where_there_was_nothing_to_do(given_counts: Counts) -> None:
    alone = hmean_of(given_counts[:, :, None, :])
    nothing = given_counts[..., 1] + given_counts[..., 2] == 0
    np.testing.assert_allclose(f_measures(given_counts), np.where(nothing, 1.0, alone))


@settings(deadline=None, max_examples=20)
@given(counts())
def test_what_is_identical_does_not_differ(given_counts: Counts) -> None:
    found = compare(given_counts, given_counts)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert not found.is_gain


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_the_other_way_round_it_is_the_other_way_round(data: st.DataObject) -> None:
    one = data.draw(counts())
    other = data.draw(counts(*one.shape[:2]))
    other[..., 1] = one[..., 1]
    there, back = compare(one, other), compare(other, one)
    assert there.difference == -back.difference
    assert there.p == pytest.approx(back.p)
    # The t quantiles meet the resamples in another order, which moves the ends a little.
    slack = 0.1 * (there.high - there.low) + 1e-12
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=slack)
    assert -1 <= there.low <= there.difference + slack
    assert 1 >= there.high >= there.difference - slack


def test_a_clear_gain_is_found_and_a_loss_is_none() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.random((200, 5))
    better, worse = (simulated(rng, 3, 200, recall, 0.002, difficulty) for recall in (0.6, 0.5))
    found = compare(better, worse)
    assert found.is_gain
    assert found.p < 1e-6
    assert found.low < found.difference < found.high
    assert not compare(worse, better).is_gain


def test_a_gain_on_one_lucky_seed_is_none() -> None:
    rng = np.random.default_rng(1)
    difficulty = rng.random((300, 5))
    runs = [simulated(rng, 1, 300, recall, 0, difficulty) for recall in (0.60, 0.49, 0.50)]
    control = np.concatenate([simulated(rng, 1, 300, 0.5, 0, difficulty) for _ in range(3)])
    found = compare(np.concatenate(runs), control)
    assert found.difference > 0.02
    assert found.p < 0.001  # more pictures of these runs would show the same; other seeds would not
    assert not found.is_gain


def test_with_no_noise_of_pictures_the_interval_is_students() -> None:
    matched = np.array([[50], [54], [53]])
    side = np.stack([matched, np.full((3, 1), 100), np.full((3, 1), 100)], axis=2)
    control = side.copy()
    control[..., 0] = 45
    found = compare(side, control)
    by_seed = np.array([0.05, 0.09, 0.08])
    half = stats.t.ppf(0.975, 2) * spread_of(by_seed) / math.sqrt(3)
    assert found.difference == pytest.approx(by_seed.mean())
    assert (found.low, found.high) == pytest.approx((by_seed.mean() - half, by_seed.mean() + half), rel=0.02)


def test_a_control_without_seeds_stands_against_each_run() -> None:
    rng = np.random.default_rng(2)
    difficulty = rng.random((100, 5))
    side, start = (simulated(rng, runs, 100, 0.5, 0.01, difficulty) for runs in (3, 1))
    one = compare(side, start)
    assert one.difference == pytest.approx(float(hmean_of(side).mean() - hmean_of(start)[0]))
    assert (one.seeds, one.pictures) == (3, 100)
    assert one == compare(side, np.repeat(start, 3, axis=0))


@pytest.mark.parametrize(("seeds", "seed_sd"), [(1, 0.0), (3, 0.0), (2, 0.02), (3, 0.08)])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(seeds: int, seed_sd: float) -> None:
    """The truth: both sides find the same share. Over 400 such comparisons it was held in 95, 99, 97 and 94%; 200 of
    them tell 95% from less than 91%. Resampling runs and pictures alike held it in 89% of the third."""
    rng = np.random.default_rng(seeds)
    held = wins = 0
    for _ in range(200):
        difficulty = rng.random((60, 4))
        one, other = (simulated(rng, seeds, 60, 0.5, seed_sd, difficulty) for _ in range(2))
        found = compare(one, other)
        held += found.low <= 0 <= found.high
        wins += found.is_gain
    assert held / 200 >= 0.91
    assert wins / 200 <= 0.05  # of one side, 2.5%


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40))
def test_signed_ranks_are_a_chance_between_0_and_1(differences: list[int]) -> None:
    array = np.array(differences, float)
    assert 0 < signed_rank(array) <= 1
    assert signed_rank(array) == pytest.approx(signed_rank(-array))


def test_counts_that_cannot_be_paired_are_refused() -> None:
    some = np.ones((3, 4, 3), np.int64)
    with pytest.raises(ValueError, match="cannot be paired"):
        compare(some, some[:2])
    with pytest.raises(ValueError, match="cannot be paired"):
        compare(some, some[:, :2])


def test_one_seed_has_no_spread() -> None:
    assert math.isnan(spread_of(np.array([0.5])))
    assert spread_of(np.array([0.5, 0.7])) == pytest.approx(0.1414, abs=1e-4)
