"""The simulated sweeps behind `benchmarks/search.py`, on curves whose outcome is known by hand."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmarks.landscapes import Curve, Synthetic, agreement, place, read_recorded
from benchmarks.record_curves import dumped
from benchmarks.search import CURVES, METHODS, RANDOM, Ground, compare, figures, table
from benchmarks.simulated_sweep import Plan, plain_plan, plain_rule, plan_of, random_curves, simulate
from ocr_ray.distributions import LogUniform, Scalar
from ocr_ray.spaces import SearchSpace

SPACE = SearchSpace("x", (("optim.lr", LogUniform(1e-4, 1e-2)), ("loss.dml.weight", LogUniform(0.125, 8.0))))
OWN = {"optim.lr": 1e-3, "loss.dml.weight": 1.0}
BLIND = {"searcher": "random", "default_first": False, "neighbours": 0}
CURVES_OF_3 = [
    Curve((0.1, 0.2, 0.9), 0.8),  # the best one, and last after the first epoch
    Curve((0.4, 0.5, 0.6), 0.5),
    Curve((0.3, 0.5, 0.7), 0.6),
    Curve((0.2, 0.6, 0.5), 0.4),
]


class ByRate:
    """Rises evenly to how near the rate is to 1e-3, without luck."""

    def curve(self, values: Mapping[str, Scalar], rng: np.random.Generator) -> Curve:
        end = 1 - 2 * abs(float(place(SPACE, values)[0]) - 0.5)
        return Curve(tuple(end * epoch / 9 for epoch in range(1, 10)), end)


def plan(trials: int = 16, **sweep: object) -> Plan:
    return plan_of(SPACE, OWN, 9, trials=trials, **sweep)


def test_the_plain_rule_trains_all_for_an_epoch_and_the_best_to_their_end() -> None:
    # 4 trials for an epoch, and half of them for two more: 4 + 2 * 2
    assert plain_plan(epochs=3, budget=8, keep=0.5) == (4, 2)
    course = plain_rule(CURVES_OF_3.__getitem__, 3, 8, 0.5)
    assert (course.trials, course.spent) == (4, 8)
    # trials 1 and 2 of 0 to 3 go on, the better one first
    np.testing.assert_array_equal(course.hmean[1:], [0.1, 0.4, 0.4, 0.4, 0.5, 0.6, 0.6, 0.7])
    np.testing.assert_array_equal(course.expected[1:], [0.8, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.6])


def test_the_plain_rule_spends_no_more_than_it_has_and_little_less() -> None:
    for budget in range(9, 400):
        number, kept = plain_plan(9, budget, 0.25)
        assert budget - 9 <= number + 8 * kept <= budget
        assert kept == max(1, round(number / 4))
    assert plain_plan(9, 8, 0.25) == (0, 0)


def test_full_random_search_spends_all_epochs_of_all_trials_and_finds_the_best_of_them() -> None:
    course = simulate(plan(**BLIND, scheduler="none"), 3, ByRate(), at_once=4, budget=5 * 9, limit=5)
    curve = random_curves(plan(**BLIND), 3, ByRate())
    assert (course.trials, course.spent, len(course.hmean)) == (5, 45, 46)
    assert course.hmean[-1] == max(curve(n).best[-1] for n in range(5))
    assert (np.diff(course.hmean[1:]) >= 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_asha_spends_less_and_loses_nothing_where_curves_keep_their_order(seed: int) -> None:
    whole = simulate(plan(**BLIND, scheduler="none"), seed, ByRate(), 1, 16 * 9, limit=16)
    asha = simulate(plan(**BLIND, scheduler="asha"), seed, ByRate(), 1, 16 * 9, limit=16)
    assert asha.hmean[-1] == whole.hmean[-1]
    assert asha.trials == whole.trials == 16
    assert 16 < asha.spent < 0.7 * whole.spent
    assert len(asha.hmean) == len(whole.hmean)


def test_the_default_tries_the_config_first() -> None:
    course = simulate(plan(), 0, ByRate(), at_once=1, budget=9)
    assert course.trials == 1
    np.testing.assert_allclose(course.hmean[1:], np.arange(1, 10) / 9)


def test_a_budget_ends_a_sweep_in_the_middle_of_a_trial_and_the_same_seed_gives_the_same_sweep() -> None:
    one, same, other = (simulate(plan(), seed, ByRate(), 4, 40) for seed in (1, 1, 2))
    assert one.spent == 40
    np.testing.assert_array_equal(one.hmean, same.hmean)
    assert not np.array_equal(one.hmean, other.hmean)


def test_methods_meet_the_same_curves_and_are_held_against_random_search() -> None:
    ground = Ground("x", SPACE, OWN, 9, lambda seed: Synthetic(SPACE, 9, seed, 0.3))
    outcomes = compare(ground, METHODS, 4, range(2), at_once=2)
    rows = {row["method"]: row for row in figures(outcomes)}
    assert list(rows) == [method.name for method in METHODS]
    assert all(len(course.hmean) == 37 for outcome in outcomes for course in outcome.courses)
    assert rows[RANDOM.name]["as typed: share of epochs"] == 1
    assert rows[RANDOM.name]["as typed: reached"] == 1
    assert table(outcomes, "").row_count == len(METHODS)


def test_made_up_curves_cross_where_they_are_to() -> None:
    in_order, crossing = (
        agreement(Synthetic(SPACE, 9, 0, c, spread=0), SPACE, np.random.default_rng(0)) for c in (0.0, 2.0)
    )
    assert min(in_order) == pytest.approx(1)
    assert crossing[0] < 0.6 < crossing[7] < crossing[8] == pytest.approx(1)


def test_a_fit_to_recorded_trials_gives_back_how_they_end(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    trials = []
    for _ in range(40):
        values = {"optim.lr": 10 ** rng.uniform(-4, -2), "loss.dml.weight": 8 ** rng.uniform(-1, 1)}
        trials.append({"values": values, "hmean": list(ByRate().curve(values, rng).hmean)})
    trials.append({"values": {"optim.lr": 9.9e-3, "loss.dml.weight": 1.0}, "hmean": [0.0]})  # it failed
    space = {"optim.lr": {"loguniform": [1e-4, 1e-2]}, "loss.dml.weight": {"loguniform": [0.125, 8.0]}}
    seeds = [[0.1] * 9, [0.2] * 9]
    file = tmp_path / "curves.json"
    file.write_text(dumped({"what": "", "epochs": 9, "space": space, "own": OWN, "trials": trials, "seeds": seeds}))
    recorded = read_recorded(file)
    assert recorded.hmeans.shape == (41, 9)
    good = [recorded.curve({"optim.lr": 1e-3, "loss.dml.weight": 2.0}, rng).expected for _ in range(5)]
    poor = [recorded.curve({"optim.lr": 1.5e-4, "loss.dml.weight": 2.0}, rng).expected for _ in range(5)]
    assert min(good) > 0.8
    assert max(poor) < 0.4
    assert "41 recorded trials end at 0.000 to" in recorded.quality()


def test_the_recorded_curves_that_ship_can_be_read() -> None:
    recorded = read_recorded(CURVES)
    assert len(recorded.hmeans) >= 40
    assert ((recorded.places >= 0) & (recorded.places <= 1)).all()
    assert ((recorded.hmeans >= 0) & (recorded.hmeans <= 1)).all()
    assert recorded.epochs == json.loads(CURVES.read_text())["epochs"]
    np.testing.assert_allclose(place(recorded.space, recorded.own), 0.5)
