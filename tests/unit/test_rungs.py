"""Why a trial was ended, in the words of the scheduler that did it."""

from pathlib import Path
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from ocr_ray.config import StudentConfig
from ocr_ray.record import Recorder
from ocr_ray.reports import USED_CONFIG
from ocr_ray.search.notes import RUNG, TrialNotes
from ocr_ray.search.rungs import rung_reached, why_ended
from ocr_ray.search.schedulers import build_scheduler
from ocr_ray.search.stopping import Rule, Stopping, ended_by_rule, stopping
from ocr_ray.search.trial import OBJECTIVE
from ocr_ray.settings import SweepConfig
from ocr_ray.typed import with_values


def after(hmeans: list[float], **values: Any) -> tuple[TrialScheduler, str]:
    """A scheduler of 20 epochs with a first comparison at the second, after trials 0, 1, ... have reported these."""
    cfg = with_values(SweepConfig(grace_epochs=2), values, "test")
    scheduler = build_scheduler(stopping(cfg, epochs=20, every_epochs=1))
    scheduler.set_search_properties(OBJECTIVE, "max")
    decision = ""
    for number, hmean in enumerate(hmeans):
        trial = Trial("x", trial_id=str(number), stub=True)
        scheduler.on_trial_add(None, trial)
        for epoch in (1, 2, 3):
            result = {"epoch": epoch, OBJECTIVE: hmean, "training_iteration": epoch}
            decision = scheduler.on_trial_result(None, trial, result)
            if decision == TrialScheduler.STOP:
                break
    return scheduler, decision


@pytest.mark.parametrize(("factor", "share"), [(2, "half"), (3, "third"), (7, "1/7")])
def test_asha_names_its_share_its_rung_and_the_figures(factor: int, share: str) -> None:
    scheduler, decision = after([0.5, 0.5, 0.5, 0.25], scheduler="asha", reduction_factor=factor)
    assert decision == TrialScheduler.STOP
    assert why_ended(scheduler, "3", 2) == f"below the best {share} at epoch 2 (0.2500 < 0.5000)"


def test_a_trial_that_reported_late_was_compared_at_the_rung_before() -> None:
    scheduler, _ = after([0.5, 0.1], scheduler="asha", reduction_factor=3)
    assert why_ended(scheduler, "1", 5).startswith("below the best third at epoch 2 (")


def test_the_median_rule_and_others_say_less() -> None:
    scheduler, decision = after([0.5, 0.6, 0.7, 0.1], scheduler="median")
    assert decision == TrialScheduler.STOP
    assert why_ended(scheduler, "3", 2) == "below the median of the others' means at epoch 2"
    scheduler, _ = after([0.5], scheduler="none")
    assert why_ended(scheduler, "0", 2) == "ended by FIFOScheduler at epoch 2"


@pytest.mark.parametrize(
    ("rule", "reached"),
    [
        ("asha", [0, 1, 1, 1, 1, 2, 2, 2, 2]),  # rungs at 2 and 6
        ("median", [0, 1, 2, 3, 4, 5, 6, 7, 7]),  # every epoch from 2 on, but not the last, 9
        ("none", [0] * 9),
        ("pbt", [0] * 9),
    ],
)
def test_decisions_are_counted_up_to_an_epoch(rule: Rule, reached: list[int]) -> None:
    plan = Stopping(rule, first=2, factor=3, epochs=9)
    assert [rung_reached(plan.decides_at, epoch) for epoch in range(1, 10)] == reached


def test_it_is_recorded_of_each_epoch_and_not_where_nothing_decides(tmp_path: Path) -> None:
    def recorded(rule: Rule) -> list[float | None]:
        plan = Stopping(rule, first=2, factor=3, epochs=5)
        notes = TrialNotes(
            *(tmp_path, lambda values: StudentConfig(), Recorder(), build_scheduler(plan), 1, None, lambda: ""),
            decides_at=plan.decides_at,
        )
        return [notes.with_cost({"epoch": epoch, USED_CONFIG: "{}"}, None).get(RUNG) for epoch in range(1, 6)]

    assert recorded("median") == [0, 1, 2, 3, 3]
    assert recorded("asha") == [0, 1, 1, 1, 1]
    assert recorded("none") == [None] * 5


@pytest.mark.parametrize("rule", ["asha", "median"])
def test_the_scheduler_ends_trials_at_those_epochs_and_at_no_other(rule: str) -> None:
    plan = stopping(SweepConfig(scheduler=rule, grace_epochs=2, trials=4), epochs=9, every_epochs=1)  # type: ignore[arg-type]
    ends = set()
    for overtaken in range(1, 10):  # the epoch after which the others' mean is above the last trial
        scheduler = build_scheduler(plan)
        scheduler.set_search_properties(OBJECTIVE, "max")
        for number in range(4):
            trial = Trial("x", trial_id=str(number), stub=True)
            scheduler.on_trial_add(None, trial)
            for epoch in range(1, 9):
                hmean = overtaken / 2 if number == 3 else float(epoch)
                result = {"epoch": epoch, OBJECTIVE: hmean, "training_iteration": epoch}
                if scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
                    ends.add(epoch)
                    break
    assert ends == set(plan.decides_at)


@pytest.mark.parametrize(
    ("end", "reason", "by_rule"),
    [
        ("stopped early", "below the best third at epoch 2 (0.2500 < 0.5000)", True),
        ("stopped early", "below the median of the others' means at epoch 2", True),
        ("stopped early", "", True),
        ("stopped early", "sweep.max_hours=1 are spent", False),
        ("stopped early", "the last 3 trials have not raised the best hmean by more than 0.002", False),
        ("stopped by hand", "asked for at 12:00", False),
        ("finished", "", False),
    ],
)
def test_early_stopping_is_what_the_rule_did(end: str, reason: str, by_rule: bool) -> None:
    assert ended_by_rule(end, reason) == by_rule
