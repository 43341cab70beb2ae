"""What the rules of a sweep do to trials."""

import math
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from ocr_ray.search.schedulers import Past, build_scheduler
from ocr_ray.search.stopping import Rule, stopping
from ocr_ray.search.trial import OBJECTIVE
from ocr_ray.settings import SweepConfig
from ocr_ray.typed import with_values

RULES: list[Rule] = ["asha", "median", "none"]


def trial_named(name: str, status: str = Trial.RUNNING) -> Trial:
    """A trial whose drawn `x` is its name."""
    trial = Trial("x", trial_id=name, config={"x": name}, stub=True)
    trial.set_status(status)
    return trial


def reports(scheduler: TrialScheduler, name: str, hmeans: dict[int, float]) -> str:
    """The decision after the last report."""
    trial = trial_named(name)
    decision = TrialScheduler.CONTINUE
    for epoch, hmean in hmeans.items():
        # Tune's own count starts again on a resume: it must not matter.
        result = {"epoch": epoch, OBJECTIVE: hmean, "training_iteration": 1, "time_total_s": 1.0}
        decision = scheduler.on_trial_result(None, trial, result)
    return str(decision)


def scheduler_of(
    epochs: int = 9,
    names: str = "abcdef",
    control: dict[str, Any] | None = None,
    past: Past = lambda trial_id: (),
    **values: Any,
) -> TrialScheduler:
    cfg = with_values(SweepConfig(grace_epochs=2, reduction_factor=2), values, "test")
    scheduler = build_scheduler(stopping(cfg, epochs, 1), control, past)
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


@pytest.mark.parametrize("scheduler", RULES)
def test_a_trial_is_never_ended_on_its_last_epoch(scheduler: str) -> None:
    tested = scheduler_of(epochs=4, scheduler=scheduler)  # rungs at 2 and, were it not the end, 4
    for name in "ab":
        reports(tested, name, dict.fromkeys((1, 2, 3, 4), 0.9))
    if scheduler != "median":  # the median rule may, and then the trial has reported all it has
        assert reports(tested, "c", {2: 0.9, 4: 0.1}) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("scheduler", RULES)
def test_with_a_grace_as_long_as_the_trial_none_is_ended(scheduler: str) -> None:
    assert not stopping(SweepConfig(grace_epochs=4), 4, 1).ends_early
    tested = scheduler_of(epochs=2, scheduler=scheduler)
    for name in "abc":
        reports(tested, name, {1: 0.9, 2: 0.9})
    assert reports(tested, "d", {1: 0.0, 2: 0.0}) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("scheduler", RULES)
def test_a_failure_report_decides_nothing(scheduler: str) -> None:
    tested = scheduler_of(scheduler=scheduler)
    trial = trial_named("a")
    result = {OBJECTIVE: math.nan, "epoch": 0, "training_iteration": 1, "failed": "worker 0: ValueError"}
    assert tested.on_trial_result(None, trial, result) == TrialScheduler.CONTINUE
    tested.on_trial_complete(None, trial, result)
    reports(tested, "b", {1: 0.5, 2: 0.5})
    assert reports(tested, "c", {1: 0.6, 2: 0.6}) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("rule", ["asha", "median"])
def test_a_resume_compares_with_all_that_was_reported_before_it(rule: Rule) -> None:
    told = {name: [{"epoch": epoch, OBJECTIVE: 0.9} for epoch in (1, 2, 3)] for name in "abc"}
    told["d"] = [{"epoch": 1, OBJECTIVE: 0.1}, {"epoch": 2, OBJECTIVE: 0.1}]
    after = scheduler_of(scheduler=rule, names="", past=lambda trial_id: told.get(trial_id, []))
    forgetful = scheduler_of(scheduler=rule, names="")
    for scheduler in (after, forgetful):
        for name in "abc":
            scheduler.on_trial_add(None, trial_named(name, Trial.TERMINATED))
        scheduler.on_trial_add(None, trial_named("d", Trial.PENDING))
    # Tune hears the last report of a trial that goes on again, and only now decides about it.
    assert reports(after, "d", {2: 0.1}) == TrialScheduler.STOP
    assert reports(forgetful, "d", {2: 0.1}) == TrialScheduler.CONTINUE


def test_a_trial_whose_process_was_lost_is_not_heard_twice() -> None:
    asked: list[str] = []
    tested = scheduler_of(scheduler="median", names="a", past=lambda trial_id: asked.append(trial_id) or [])
    tested.on_trial_error(None, trial_named("a"))
    tested.on_trial_add(None, trial_named("a", Trial.PENDING))
    assert asked == ["a"]


@pytest.mark.parametrize("rule", RULES)
def test_the_control_is_compared_with_and_never_ended(rule: Rule) -> None:
    tested = scheduler_of(scheduler=rule, control={"x": "c"})
    for name in "abd":
        reports(tested, name, dict.fromkeys((1, 2), 0.9))
    control = trial_named("c")
    for epoch in range(1, 9):
        result = {"epoch": epoch, OBJECTIVE: 0.1, "training_iteration": 1}
        assert tested.on_trial_result(None, control, result) == TrialScheduler.CONTINUE
    tested.on_trial_complete(None, control, {"epoch": 9, OBJECTIVE: 0.1})
    if rule != "none":
        assert reports(tested, "e", {1: 0.1, 2: 0.1}) == TrialScheduler.STOP
        # but for the control's two, e would be the second of a kind
        alone = scheduler_of(scheduler=rule, control={"x": "c"})
        reports(alone, "c", {1: 0.5, 2: 0.5})
        reports(alone, "a", {1: 0.6, 2: 0.6})
        assert reports(alone, "b", {1: 0.4, 2: 0.4}) == TrialScheduler.STOP


@pytest.mark.parametrize(
    ("trials", "given", "rule", "first"),
    [
        (4, {}, "median", 10),  # a third of 27 is 9, and the next evaluation is after epoch 10
        (12, {}, "median", 10),
        (15, {}, "median", 10),
        (16, {}, "asha", 5),  # a ninth is 3
        (64, {}, "asha", 5),
        (64, {"grace_epochs": 4}, "asha", 4),
        (4, {"grace_epochs": 1}, "median", 1),
        (4, {"scheduler": "asha"}, "asha", 5),
        (64, {"scheduler": "median"}, "median", 10),
        (64, {"scheduler": "none"}, "none", 5),
        (64, {"against": "parameters"}, "none", 27),
        (4, {"against": "parameters"}, "none", 27),
    ],
)
def test_what_is_left_open_follows_from_trials_and_epochs(
    trials: int, given: dict[str, Any], rule: Rule, first: int
) -> None:
    plan = stopping(with_values(SweepConfig(trials=trials), given, "test"), 27, 5)
    assert (plan.rule, plan.first) == (rule, first)


def test_rungs_are_those_of_rays_scheduler_and_none_lies_on_the_last_epoch() -> None:
    for epochs in range(2, 200):
        plan = stopping(SweepConfig(scheduler="asha", reduction_factor=2), epochs, 1)
        theirs = AsyncHyperBandScheduler(grace_period=plan.first, max_t=epochs - 1, reduction_factor=2)
        assert plan.rungs == tuple(sorted(rung for rung, _ in theirs._brackets[0]._rungs)), epochs
        assert all(rung < epochs for rung in plan.rungs)
    assert stopping(SweepConfig(scheduler="median"), 500, 5).rungs == (170, 340)
    assert stopping(SweepConfig(against="latency"), 500, 5).rungs == ()
