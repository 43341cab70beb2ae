"""What every searcher of a sweep does, and what its schedulers do to trials."""

import math
from pathlib import Path
from typing import Any

import pytest
from ray.tune.experiment import Experiment, Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import SearchAlgorithm, Searcher, SearchGenerator

from ocr_ray.config import CMLConfig
from ocr_ray.search.searchers import build_scheduler, build_searcher, ends_early, restore_scheduler, save_scheduler
from ocr_ray.search.trial import OBJECTIVE, plain_value
from ocr_ray.settings import SweepConfig
from ocr_ray.spaces import Choice, LogUniform, QUniform, RandInt, SearchSpace, Uniform, holds
from ocr_ray.typed import with_values

SEARCHERS = ["tpe", "random"]
SPACE = SearchSpace(
    "x.yaml",
    (
        ("optim.lr", LogUniform(1e-4, 1e-1)),
        ("loss.db.alpha", Uniform(1.0, 10.0)),
        ("loss.db.beta", QUniform(2.0, 20.0, 2.0)),
        ("data.batch_size", RandInt(4, 9)),
        ("loss.db.main", Choice(("dice", "bce"))),
    ),
)
Values = dict[str, Any]


def sweep_config(searcher: str, trials: int = 12, **values: Any) -> SweepConfig:
    return with_values(SweepConfig(), {"searcher": searcher, "trials": trials, **values}, "test")


def algorithm(cfg: SweepConfig, first: Values | None = None, at_once: int = 4) -> SearchAlgorithm:
    """The searcher as Tune's loop holds it, with the space, the metric and the number of trials."""
    built = build_searcher(cfg, first, at_once)
    whole = SearchGenerator(built) if isinstance(built, Searcher) else built
    domains = SPACE.to_tune()
    whole.set_search_properties(OBJECTIVE, "max", domains)
    whole.add_configurations([Experiment("x", lambda config: None, config=domains, num_samples=cfg.trials)])
    return whole


def run_through(searcher: SearchAlgorithm, score: Any, limit: int = 10**6) -> list[Values]:
    """One trial after another, each reporting twice and ending with `score` of its values."""
    seen: list[Values] = []
    while len(seen) < limit:
        trial = searcher.next_trial()
        if trial is None:
            break
        seen.append({key: plain_value(trial.config[key]) for key in SPACE.varied})
        result = {OBJECTIVE: score(seen[-1]), "epoch": 1, "training_iteration": 1}
        searcher.on_trial_result(trial.trial_id, result)
        searcher.on_trial_complete(trial.trial_id, result)
    return seen


def by_rate(values: Values) -> float:
    """Best at lr 1e-2."""
    return 1 - abs(math.log10(values["optim.lr"]) + 2) / 2


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_every_draw_is_in_bounds_and_the_config_takes_it(searcher: str) -> None:
    drawn = run_through(algorithm(sweep_config(searcher)), by_rate)
    assert len(drawn) == 12
    for values in drawn:
        assert all(holds(distribution, values[key]) for key, distribution in SPACE.distributions)
        with_values(CMLConfig(), values, "trial")
    assert len({values["optim.lr"] for values in drawn}) == 12


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_the_same_seed_gives_the_same_draws_and_another_seed_others(searcher: str) -> None:
    one, same, other = (run_through(algorithm(sweep_config(searcher, seed=seed)), by_rate) for seed in (3, 3, 4))
    assert one == same
    assert one != other


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_the_first_trial_takes_the_configs_own_values(searcher: str) -> None:
    own = SPACE.own_values(CMLConfig())
    assert own is not None
    assert run_through(algorithm(sweep_config(searcher), own), by_rate, 1) == [own]
    assert run_through(algorithm(sweep_config(searcher, default_first=False), own), by_rate, 1) != [own]


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_no_more_trials_at_a_time_than_there_is_room_for(searcher: str) -> None:
    search = algorithm(sweep_config(searcher), at_once=2)
    first, second = search.next_trial(), search.next_trial()
    assert first is not None
    assert second is not None
    assert search.next_trial() is None
    search.on_trial_complete(first.trial_id, {OBJECTIVE: 0.5, "training_iteration": 1})
    assert search.next_trial() is not None


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_its_state_survives_a_save_and_a_restore(searcher: str, tmp_path: Path) -> None:
    whole = run_through(algorithm(sweep_config(searcher, seed=5)), by_rate)
    half = algorithm(sweep_config(searcher, seed=5))
    before = run_through(half, by_rate, 6)
    half.save_to_dir(str(tmp_path), session_str="s")
    again = algorithm(sweep_config(searcher, seed=99))
    assert again.has_checkpoint(str(tmp_path))
    again.restore_from_dir(str(tmp_path))
    assert before + run_through(again, by_rate) == whole


@pytest.mark.parametrize("searcher", SEARCHERS)
@pytest.mark.parametrize("bad", [math.nan, -math.inf, 0.0])
def test_a_trial_without_a_number_does_no_harm(searcher: str, bad: float) -> None:
    def score(values: Values) -> float:
        return bad if values["optim.lr"] > 1e-2 else by_rate(values)

    drawn = run_through(algorithm(sweep_config(searcher, trials=20)), score)
    assert len(drawn) == 20
    assert all(holds(LogUniform(1e-4, 1e-1), values["optim.lr"]) for values in drawn)


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_a_lost_trial_does_no_harm(searcher: str) -> None:
    search = algorithm(sweep_config(searcher, trials=3))
    trial = search.next_trial()
    assert trial is not None
    search.on_trial_complete(trial.trial_id, error=True)
    assert len(run_through(search, by_rate)) == 2


def test_tpe_learns_where_the_good_values_are() -> None:
    drawn = run_through(algorithm(sweep_config("tpe", trials=30)), by_rate)
    late = sorted(by_rate(values) for values in drawn[-10:])
    early = sorted(by_rate(values) for values in drawn[:10])
    assert late[5] > early[5]


def trial_named(name: str) -> Trial:
    return Trial("x", trial_id=name, stub=True)


def reports(scheduler: TrialScheduler, name: str, hmeans: dict[int, float]) -> str:
    """The decision after the last report."""
    trial = trial_named(name)
    decision = TrialScheduler.CONTINUE
    for epoch, hmean in hmeans.items():
        # Tune's own count starts again on a resume: it must not matter.
        result = {"epoch": epoch, OBJECTIVE: hmean, "training_iteration": 1, "time_total_s": 1.0}
        decision = scheduler.on_trial_result(None, trial, result)
    return str(decision)


def scheduler_of(epochs: int = 9, names: str = "abcdef", **values: Any) -> TrialScheduler:
    cfg = with_values(SweepConfig(grace_epochs=2, reduction_factor=2), values, "test")
    scheduler = build_scheduler(cfg, epochs)
    scheduler.set_search_properties(OBJECTIVE, "max")
    for name in names:
        scheduler.on_trial_add(None, trial_named(name))
    return scheduler


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_no_trial_is_ended_before_its_grace_and_poor_ones_after_it(scheduler: str) -> None:
    tested = scheduler_of(scheduler=scheduler)
    for name, hmean in (("a", 0.5), ("b", 0.6), ("c", 0.7)):
        assert reports(tested, name, {1: hmean, 2: hmean, 3: hmean}) == TrialScheduler.CONTINUE
    assert reports(tested, "d", {1: 0.0}) == TrialScheduler.CONTINUE
    assert TrialScheduler.STOP in (reports(tested, "d", {2: 0.0}), reports(tested, "d", {3: 0.0}))
    assert reports(tested, "e", {1: 0.8, 2: 0.8, 3: 0.8}) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("scheduler", ["asha", "median", "none"])
def test_a_trial_is_never_ended_on_its_last_epoch(scheduler: str) -> None:
    tested = scheduler_of(epochs=4, scheduler=scheduler)  # rungs at 2 and, were it not the end, 4
    for name in "ab":
        reports(tested, name, dict.fromkeys((1, 2, 3, 4), 0.9))
    if scheduler != "median":  # the median rule may, and then the trial has reported all it has
        assert reports(tested, "c", {2: 0.9, 4: 0.1}) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("scheduler", ["asha", "median", "none"])
def test_with_a_grace_as_long_as_the_trial_none_is_ended(scheduler: str) -> None:
    assert not ends_early(SweepConfig(grace_epochs=4), 4)
    tested = scheduler_of(epochs=2, scheduler=scheduler)
    for name in "abc":
        reports(tested, name, {1: 0.9, 2: 0.9})
    assert reports(tested, "d", {1: 0.0, 2: 0.0}) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("scheduler", ["asha", "median", "none"])
def test_a_failure_report_decides_nothing(scheduler: str) -> None:
    tested = scheduler_of(scheduler=scheduler)
    trial = trial_named("a")
    result = {OBJECTIVE: math.nan, "epoch": 0, "training_iteration": 1, "failed": "worker 0: ValueError"}
    assert tested.on_trial_result(None, trial, result) == TrialScheduler.CONTINUE
    tested.on_trial_complete(None, trial, result)
    reports(tested, "b", {1: 0.5, 2: 0.5})
    assert reports(tested, "c", {1: 0.6, 2: 0.6}) == TrialScheduler.CONTINUE


def test_rungs_are_remembered_over_a_resume(tmp_path: Path) -> None:
    before = scheduler_of(scheduler="asha")
    for name in "abc":
        reports(before, name, {2: 0.9})
    save_scheduler(before, tmp_path / "rungs.pkl")
    after, forgetful = scheduler_of(scheduler="asha", names=""), scheduler_of(scheduler="asha")
    restore_scheduler(after, tmp_path / "rungs.pkl")
    restore_scheduler(forgetful, tmp_path / "none.pkl")
    # As `tune.run` does, which gives up where this is refused.
    assert after.set_search_properties(OBJECTIVE, "max")
    after.on_trial_add(None, trial_named("d"))
    assert reports(after, "d", {2: 0.1}) == TrialScheduler.STOP
    assert reports(forgetful, "d", {2: 0.1}) == TrialScheduler.CONTINUE
