"""What a confirmation takes, and how a budget is shared between it and the trials."""

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from ocr_ray.config import StudentConfig
from ocr_ray.confirm.candidates import Candidate
from ocr_ray.confirm.room import BudgetLeft
from ocr_ray.confirm.runs import Confirmed, ConfirmRun, confirmed_so_far
from ocr_ray.reports import append_report
from ocr_ray.search.room import Cost, KeptRoom, RunTime, RunTimes, cost_of, kept_candidates, runs_of
from ocr_ray.search.trial import train_folder
from ocr_ray.search.trials import TrialBook, TrialSummary
from ocr_ray.settings import SweepConfig
from ocr_ray.stopwatch import Stopwatch
from ocr_ray.typed import with_values

UNIT = 100.0


def settings(**values: object) -> SweepConfig:
    return with_values(SweepConfig(), values, "test")


@given(st.lists(st.floats(0, 1e4), max_size=12), st.integers(1, 5), st.integers(1, 4))
def test_runs_side_by_side_take_no_less_than_their_share_and_than_the_longest(
    runs: list[float], at_once: int, workers: int
) -> None:
    cost = cost_of(runs, at_once, workers)
    assert cost.device_seconds == pytest.approx(sum(runs) * workers)
    assert max([sum(runs) / at_once, *runs]) <= cost.seconds + 1e-6
    assert cost.seconds <= sum(runs) / at_once + max(runs, default=0.0) + 1e-6


def test_whole_rounds_of_equal_runs() -> None:
    assert cost_of([UNIT] * 4, 2, 1) == Cost(2 * UNIT, 4 * UNIT)
    assert cost_of([UNIT] * 5, 2, 3) == Cost(3 * UNIT, 15 * UNIT)
    assert cost_of([], 2, 3) == Cost()


@pytest.mark.parametrize(
    ("hours", "device", "expected"),
    [
        (None, None, 3),
        (24, None, 3),  # 12 runs one after another are half of it
        (23, None, 2),
        (12, None, 1),
        (11.9, None, 0),
        (24, 24, 1),  # each on two devices
        (11, 1000, 0),
    ],
)
def test_the_trials_keep_half_and_as_many_are_confirmed_as_fit_into_the_other(
    hours: float | None, device: float | None, expected: int
) -> None:
    cfg = settings(confirm=3, seeds=3, max_hours=hours, max_device_hours=device)
    assert kept_candidates(cfg, lambda count: cost_of([3600.0] * runs_of(cfg, count), 1, 2)) == expected


def reported(storage: Path, book: TrialBook, number: int, epochs: int, epoch_s: float, start_s: float) -> None:
    trial_id = f"t{number}"
    folder = storage / train_folder("s", trial_id)
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in range(1, epochs + 1):
        append_report(folder, {"epoch": epoch, "time.epoch_s": epoch_s})
    book.change(TrialSummary(number, trial_id, epochs=epochs, seconds=start_s + epochs * epoch_s))


def test_room_is_kept_by_what_trials_took(tmp_path: Path) -> None:
    cfg = settings(confirm=1, seeds=2, max_hours=1.0)
    book = TrialBook(tmp_path / "s", {})
    kept = KeptRoom(cfg, book, RunTimes(tmp_path / "s"), epochs=10, workers=2, at_once=2)
    assert kept.of_now() == Cost()  # nothing is known
    book.change(TrialSummary(1, "t1"))
    assert kept.of_now() == Cost()
    reported(tmp_path, book, 1, epochs=2, epoch_s=5.0, start_s=20.0)
    reported(tmp_path, book, 2, epochs=1, epoch_s=15.0, start_s=20.0)
    # 20 s and 10 epochs of 10 s; four runs, two at a time; an epoch in each trial may be under way.
    assert kept.times.mean(book.trials) == RunTime(20.0, 10.0)
    found = kept.of_now()
    assert found.seconds == pytest.approx(240 * 1.05 + 10)
    assert found.device_seconds == pytest.approx(960 * 1.05 + 40)
    assert dataclasses.replace(kept, confirmed=2).of_now().seconds == pytest.approx(120 * 1.05 + 10)
    assert dataclasses.replace(kept, confirmed=9).of_now() == Cost()
    assert dataclasses.replace(kept, cfg=settings(confirm=1, seeds=2)).of_now() == Cost()  # no budget
    assert dataclasses.replace(kept, cfg=settings(max_hours=1.0)).of_now() == Cost()  # no confirmation
    small = settings(confirm=1, seeds=2, max_hours=0.1)
    assert dataclasses.replace(kept, cfg=small).of_now() == Cost()  # 240 s are more than half of 360 s


def left(storage: Path, spent_s: float, **values: object) -> BudgetLeft:
    cfg = settings(confirm=2, seeds=2, **values)
    return BudgetLeft(cfg, storage, Cost(spent_s, spent_s), RunTime(0.0, 10.0), 2, 1, "ocr-ray tune c s --resume")


def runs_for(candidates: int) -> list[ConfirmRun]:
    cfg = with_values(StudentConfig(), {"optim.epochs": 6}, "test")
    arms = [Candidate("candidate", f"trial-{n}", f"trial {n}", {}) for n in range(1, candidates + 1)]
    arms.append(Candidate("default", "default", "default config", {}))
    return [ConfirmRun(arm, seed, cfg, f"s/confirm/{arm.key}-seed-{seed}") for seed in (1, 2) for arm in arms]


def test_as_many_candidates_are_confirmed_as_are_left_room_for(tmp_path: Path) -> None:
    # Runs of 60 s, two at a time: 180 s for two candidates, 120 s for one.
    assert left(tmp_path, 1e6).candidates(2, runs_for) == 2
    assert left(tmp_path, 3600 - 180 / 1.09, max_hours=1.0).candidates(2, runs_for) == 2  # a little more than is left
    assert left(tmp_path, 3600 - 180 / 1.11, max_hours=1.0).candidates(2, runs_for) == 1
    assert left(tmp_path, 3600 - 100, max_hours=1.0).candidates(2, runs_for) is None
    assert left(tmp_path, 3600 - 400, max_hours=9.0, max_device_hours=1.0).candidates(2, runs_for) == 2
    assert left(tmp_path, 3600 - 300, max_hours=9.0, max_device_hours=1.0).candidates(2, runs_for) == 1
    assert left(tmp_path, 3600 - 100, max_hours=1.0).candidates(0, runs_for) == 0  # the control alone
    assert left(tmp_path, 3600, max_hours=1.0).candidates(0, runs_for) is None


def test_what_was_done_needs_no_room(tmp_path: Path) -> None:
    for run in runs_for(2):
        (tmp_path / run.folder).mkdir(parents=True)
        append_report(tmp_path / run.folder, {"epoch": 6 if run.candidate.key != "trial-2" else 3})
    assert left(tmp_path, 0.0).need(runs_for(2)) == Cost(30.0, 60.0)
    assert left(tmp_path, 9999.0, max_hours=1.0).candidates(2, runs_for) == 1


def test_what_has_no_room_is_told_with_the_command_that_makes_it_up(tmp_path: Path) -> None:
    none = left(tmp_path, 3600.0, max_hours=1.0)
    assert none.told(runs_for(2), None, 2) == (
        "skipped: 6 runs would take about 3 min and 0.1 device-hours, more than sweep.max_hours=1 leaves; to make it "
        "up: ocr-ray tune c s --resume sweep.max_hours=1.1"
    )
    few = left(tmp_path, 3600 - 300, max_hours=9.0, max_device_hours=1.0)
    assert few.told(runs_for(2), 1, 2) == (
        "1 of 2 candidates: all 6 runs would take about 3 min and 0.1 device-hours, more than sweep.max_device_hours=1 "
        "leaves; to make it up: ocr-ray tune c s --resume sweep.max_device_hours=1.1"
    )


@settings_of_hypothesis(deadline=None)
@given(st.floats(1.0, 1e5), st.floats(0.1, 1e4))
def test_the_budget_that_is_proposed_keeps_room_for_all_of_it(spent_s: float, epoch_s: float) -> None:
    there = dataclasses.replace(left(Path("/nowhere"), spent_s, max_hours=spent_s / 3600), time=RunTime(0.0, epoch_s))
    proposed = float(there.told(runs_for(2), None, 2).rpartition("=")[2])
    again = dataclasses.replace(there.cfg, max_hours=proposed)
    assert proposed * 3600 >= spent_s
    assert math.isfinite(proposed)
    need = there.need(runs_for(2))
    assert kept_candidates(again, lambda k: need) == 2
    assert dataclasses.replace(there, cfg=again).candidates(2, runs_for) == 2


def test_a_confirmation_is_counted_over_attempts(tmp_path: Path) -> None:
    cfg = with_values(StudentConfig(), {"optim.epochs": 6, "ray.num_workers": 3}, "test")
    assert confirmed_so_far(tmp_path / "s", cfg) == Confirmed()
    now = [0.0]
    for run, epochs in zip(runs_for(1), (6, 6, 2), strict=False):
        watch = Stopwatch(tmp_path / run.folder, lambda: now[0])
        now[0] += 10
        watch.save()
        append_report(tmp_path / run.folder, {"epoch": epochs})
    found = confirmed_so_far(tmp_path / "s", cfg)
    assert found.runs == 2
    assert found.device_seconds == pytest.approx(90, abs=1)
