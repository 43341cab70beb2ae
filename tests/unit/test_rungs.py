"""Why a trial was ended, in the words of the scheduler that did it."""

from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from ocr_ray.search.rungs import rung_reached, rungs_of, why_ended
from ocr_ray.search.schedulers import build_scheduler, stopping
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


def test_rungs_are_counted_up_to_an_epoch() -> None:
    rungs = rungs_of(after([0.5], scheduler="asha", reduction_factor=3)[0])
    assert rungs == (2, 6, 18)
    assert [rung_reached(rungs, epoch) for epoch in (1, 2, 5, 6, 20)] == [0, 1, 1, 2, 3]
    assert rungs_of(after([0.5], scheduler="median")[0]) == ()
