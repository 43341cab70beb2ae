"""When a sweep's budget is spent, what it will have cost, and whether its checkpoints fit the disk."""

import dataclasses
import pickle
from pathlib import Path

import pytest
import torch
from ray.tune.search import BasicVariantGenerator

from ocr_ray.config import CMLConfig, StudentConfig, override
from ocr_ray.engine.checkpoint import RunState, checkpoint_bytes, save_checkpoint
from ocr_ray.engine.optim import build_adam
from ocr_ray.errors import ConfigError, RunError
from ocr_ray.models.detector import Detector
from ocr_ray.models.distillation import DMLPair, Single
from ocr_ray.progress import RunTiming
from ocr_ray.search.budget import Budget, Plateau
from ocr_ray.search.cost import CostEstimate, duration
from ocr_ray.search.disk import disk_need, must_have_room
from ocr_ray.search.notes import device_hours_of
from ocr_ray.search.room import Cost
from ocr_ray.search.trials import End, TrialBook, TrialSummary
from ocr_ray.settings import SweepConfig
from ocr_ray.stopwatch import Stopwatch, device_hours
from ocr_ray.typed import with_values


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def trial(number: int, hmean: float | None, end: End = "finished", seconds: float = 0.0) -> TrialSummary:
    return TrialSummary(number, str(number), {}, 1, hmean, "", end, "", seconds)


def budget_in(folder: Path, clock: Clock, **values: object) -> tuple[Budget, TrialBook, BasicVariantGenerator]:
    book, search = TrialBook(folder, {}), BasicVariantGenerator()
    cfg = with_values(SweepConfig(), values, "test")
    found = Budget(cfg, book, Stopwatch(folder, clock), lambda: device_hours_of(book.trials, 2), search)
    return found, book, search


def test_without_a_limit_nothing_ends_it(tmp_path: Path) -> None:
    clock = Clock()
    budget, book, search = budget_in(tmp_path, clock)
    for number in range(1, 16):
        book.change(trial(number, 0.5, seconds=1e6))
    clock.now += 1e9
    assert not budget("1", {})
    assert not budget.stop_all()
    assert (budget.reason, search.is_finished()) == ("", False)


def test_wall_time_counts_over_attempts(tmp_path: Path) -> None:
    clock = Clock()
    budget, _, search = budget_in(tmp_path, clock, max_hours=1.0)
    clock.now += 3000
    assert not budget("1", {})
    assert not budget.stop_all()
    clock.now += 10  # a killed driver loses what it had not written down
    again, _, search = budget_in(tmp_path, clock, max_hours=1.0)
    clock.now += 590
    assert not again.stop_all()
    assert not search.is_finished()
    clock.now += 20
    assert not again.stop_all()  # else Tune would cut trials off in the middle of an epoch
    assert search.is_finished()
    assert again("1", {})
    assert again.reason == "sweep.max_hours=1 are spent"


def test_device_hours_are_those_of_all_trials_times_workers(tmp_path: Path) -> None:
    budget, book, search = budget_in(tmp_path, Clock(), max_device_hours=2.0)
    book.change(trial(1, 0.5, seconds=1800))
    book.change(trial(2, 0.1, "failed", seconds=900))
    assert not budget("3", {})
    book.change(trial(3, None, "running", seconds=900))
    assert budget("3", {})
    assert budget.reason == "sweep.max_device_hours=2 are spent (2)"
    assert search.is_finished()


def test_a_budget_keeps_room_for_the_confirmation_and_says_so(tmp_path: Path) -> None:
    clock, kept = Clock(), [Cost()]
    book, search = TrialBook(tmp_path, {}), BasicVariantGenerator()
    cfg = with_values(SweepConfig(), {"max_hours": 1.0, "max_device_hours": 2.0}, "test")
    budget = Budget(cfg, book, Stopwatch(tmp_path, clock), lambda: 0.5, search, lambda: kept[0])
    clock.now += 1800
    kept[0] = Cost(1799, 5399)
    assert not budget("1", {})
    kept[0] = Cost(1799, 5401)
    again = Budget(cfg, book, Stopwatch(tmp_path, clock), lambda: 0.5, search, lambda: kept[0])
    assert again("1", {})
    assert again.reason == "sweep.max_device_hours=2 are spent (0.5), but for 1.5 that are kept for the confirmation"
    kept[0] = Cost(1801, 0)
    assert budget("1", {})
    assert budget.reason == "sweep.max_hours=1 are spent, but for 30 min that are kept for the confirmation"


def test_the_control_comes_to_its_end_and_the_others_say_what_ended_them(tmp_path: Path) -> None:
    clock = Clock()
    book, search = TrialBook(tmp_path, {}), BasicVariantGenerator()
    cfg = with_values(SweepConfig(), {"max_hours": 1.0}, "test")
    watch = Stopwatch(tmp_path, clock)
    budget = Budget(cfg, book, watch, lambda: 0.0, search, is_control=lambda trial_id: trial_id == "1")
    assert not budget("2", {})
    clock.now += 3600
    assert not budget("1", {})
    assert budget("2", {})
    assert search.is_finished()
    assert [budget.why_ended(trial_id) for trial_id in "123"] == ["", "sweep.max_hours=1 are spent", ""]


def test_a_plateau_is_so_many_trials_without_a_rise_beyond_the_margin(tmp_path: Path) -> None:
    budget, book, _ = budget_in(tmp_path, Clock(), plateau_trials=2, plateau_margin=0.01)
    for number, hmean, end in (
        (1, 0.5, "finished"),
        (2, 0.505, "finished"),
        (3, 0.515, "stopped early"),
        (4, None, "failed"),
        (5, 0.4, "stopped early"),
        (6, 0.9, "running"),
    ):
        book.change(trial(number, hmean, end))  # type: ignore[arg-type]
        assert not budget("6", {})
    book.change(trial(6, 0.52))
    assert budget("7", {})
    assert budget.reason == (
        "the last 2 trials have not raised the best hmean by more than sweep.plateau_margin=0.01 "
        "(sweep.plateau_trials=2)"
    )


def test_many_small_steps_are_a_rise(tmp_path: Path) -> None:
    plateau = Plateau(0.01)
    trials = [trial(number, 0.5 + number * 0.004) for number in range(1, 10)]
    for seen in range(1, 10):
        plateau.take(trials[:seen])
        assert plateau.trials <= 2


def test_what_is_over_was_not_ended_by_a_budget(tmp_path: Path) -> None:
    budget, book, _ = budget_in(tmp_path, Clock(), trials=3, plateau_trials=2)
    for number in (1, 2, 3):
        book.change(trial(number, 0.5))
    budget.stop_all()
    assert budget.reason == ""


def test_more_failures_than_its_share_end_it_and_those_of_an_earlier_attempt_do_not(tmp_path: Path) -> None:
    budget, book, search = budget_in(tmp_path, Clock(), trials=4, max_failed=0.25)
    book.change(dataclasses.replace(trial(1, None, "failed"), reason="loss is not finite"))
    book.change(trial(2, 0.5))
    assert not budget("2", {})
    assert (budget.too_many_failed, search.is_finished()) == ("", False)
    for number in (3, 4):
        book.change(dataclasses.replace(trial(number, None, "failed"), reason="no memory"))
    assert not budget("2", {})  # what runs may come to its end
    assert search.is_finished()
    assert budget.reason == ""
    assert budget.too_many_failed == (
        "3 of 4 trials failed, more than sweep.max_failed=0.25 allows: trial 1: loss is not finite; "
        "trial 3, 4: no memory"
    )
    cfg, search = with_values(SweepConfig(), {"trials": 4, "max_failed": 0.25}, "test"), BasicVariantGenerator()
    again = Budget(cfg, book, Stopwatch(tmp_path), lambda: 0.0, search)
    assert not again.stop_all()
    assert not search.is_finished()
    for number in (1, 3):  # tried again
        book.change(trial(number, None, "running"))
        assert not again.stop_all()
        book.change(trial(number, None, "failed"))
    assert not again.stop_all()
    assert again.too_many_failed.startswith("2 of 4 trials failed")


def test_tune_may_pickle_it(tmp_path: Path) -> None:
    budget, _, _ = budget_in(tmp_path, Clock(), max_hours=1.0)
    pickle.dumps(budget)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_hours": 0}, "sweep.max_hours: expected more than 0, found 0"),
        ({"max_device_hours": -1}, "sweep.max_device_hours: expected more than 0, found -1"),
        ({"plateau_trials": 0}, "sweep.plateau_trials: expected at least 1, found 0"),
        ({"plateau_margin": -0.1}, "sweep.plateau_margin: expected 0 to 1, found -0.1"),
        ({"max_failed": 1.5}, "sweep.max_failed: expected 0 to 1, found 1.5"),
    ],
)
def test_budgets_that_are_none_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_values(SweepConfig(), values, "test")


def estimate(trials: int = 8, at_once: int = 2, **values: object) -> CostEstimate:
    return CostEstimate(with_values(SweepConfig(), values, "test"), trials, at_once, workers=4, disk=2**31)


def test_nothing_is_said_before_a_trial_has_trained() -> None:
    assert estimate().sentence([RunTiming("trial 1", 10.0)], 15.0) is None
    assert estimate().note([], 15.0) == ""


def test_the_first_trials_steps_give_the_whole_sweep() -> None:
    timings = [RunTiming("trial 1", 30.0, False, 100.0, 120.0, steps=50), RunTiming("trial 2", 30.0)]
    found = estimate().of(timings, elapsed_s=40.0)
    assert found is not None
    assert found.step_s == 2.0
    assert found.left_s == (2 * 90 + 6 * 120) / 2
    assert found.seconds == 40 + found.left_s
    assert found.device_seconds == 8 * 120 * 4
    sentence = estimate().sentence(timings, 40.0)
    assert sentence == ("sweep: at most 8 min, 1.1 device-hours and 2.00 GiB of disk, by 2 s a step in its first trial")
    assert estimate().note(timings, 40.0) == ", at most 8 min left, 1.1 device-hours in all"


def test_trials_that_were_ended_early_make_it_less_and_the_last_one_is_waited_for() -> None:
    timings = [
        *(RunTiming(f"trial {n}", 60.0, True, 100.0, 120.0, steps=50) for n in range(1, 8)),
        RunTiming("trial 8", 20.0, False, 100.0, 120.0, steps=50),
    ]
    found = estimate().of(timings, elapsed_s=300.0)
    assert found is not None
    assert found.left_s == 100.0
    assert found.device_seconds == pytest.approx((7 * 60 + 120) * 4)


def test_a_budget_bounds_it() -> None:
    timings = [RunTiming("trial 1", 30.0, False, 3600.0, 3600.0, steps=50)]
    whole, bounded = estimate().of(timings, 30.0), estimate(max_hours=0.5).of(timings, 30.0)
    assert whole is not None
    assert bounded is not None
    assert whole.seconds > 3 * 3600
    assert bounded.seconds == pytest.approx(1800)
    assert bounded.left_s == pytest.approx(1770)
    fewer = estimate(max_device_hours=1.0).of(timings, 30.0)
    assert fewer is not None
    assert fewer.device_seconds == pytest.approx(3600)


def test_the_confirmation_is_part_of_what_a_sweep_costs() -> None:
    timings = [RunTiming("trial 1", 30.0, False, 100.0, 120.0, steps=50), RunTiming("trial 2", 30.0)]
    found = dataclasses.replace(estimate(confirm=2, seeds=3), confirm_disk=2**30)
    alone, both = estimate().of(timings, 40.0), found.of(timings, 40.0)
    assert alone is not None
    assert both is not None
    assert both.confirmation == Cost(5 * 120.0, 9 * 120.0 * 4)  # nine runs, two at a time
    assert both.seconds == alone.seconds + 600
    assert both.left_s == alone.left_s + 600
    assert both.device_seconds == alone.device_seconds + 9 * 120 * 4
    sentence = found.sentence(timings, 40.0)
    assert sentence == (
        "sweep: at most 18 min, 2.3 device-hours and 2.00 GiB of disk, of which the confirmation 10 min, 1.2 "
        "device-hours and 1.00 GiB, by 2 s a step in its first trial"
    )
    assert found.note(timings, 40.0) == ", at most 18 min left with the confirmation, 2.3 device-hours in all"
    resumed = dataclasses.replace(found, confirmed=7).of(timings, 40.0)
    assert resumed is not None
    assert resumed.confirmation.seconds == 120


def test_a_budget_bounds_the_trials_so_that_the_confirmation_fits() -> None:
    timings = [RunTiming("trial 1", 30.0, False, 300.0, 300.0, steps=50)]
    asked: dict[str, object] = {"confirm": 2, "seeds": 2}
    roomy, tight, none = (estimate(**asked, max_hours=seconds / 3600) for seconds in (1800.0, 1700.0, 900.0))
    for cost, seconds, candidates in ((roomy, 1800, 2), (tight, 1700, 1), (none, 900, 0)):
        found = cost.of(timings, 30.0)
        assert found is not None
        assert (round(found.seconds), found.candidates) == (seconds, candidates)
    assert ", of which the confirmation (of 1 in place of 2) 10 min, " in str(tight.sentence(timings, 30.0))
    assert ", without the confirmation, for which the budget has no room, by" in str(none.sentence(timings, 30.0))


def test_no_budget_makes_the_control_shorter() -> None:
    timings = [RunTiming("trial 1", 30.0, False, 300.0, 300.0, steps=50), RunTiming("trial 2", 30.0)]
    found = dataclasses.replace(estimate(max_hours=0.02), control="trial 1").of(timings, 30.0)
    assert found is not None
    assert found.seconds == pytest.approx(300)
    assert found.left_s == pytest.approx(270)


def test_durations_are_for_people() -> None:
    assert [duration(s) for s in (40, 89.6, 720, 5300, 11_520)] == ["40 s", "90 s", "12 min", "88 min", "3.2 h"]


def test_the_stopwatch_goes_on_where_it_was_written_down(tmp_path: Path) -> None:
    clock = Clock()
    watch = Stopwatch(tmp_path, clock)
    clock.now += 10
    watch.save(least_s=20)
    assert Stopwatch(tmp_path, clock).seconds == 0
    watch.save()
    clock.now += 5
    assert Stopwatch(tmp_path, clock).seconds == 10
    assert watch.seconds == 15


def test_device_hours_of_a_report() -> None:
    assert device_hours({"time.epoch_s": 36.0}, 2, 72.0) == {"device_hours.epoch": 0.02, "device_hours": 0.04}
    assert device_hours({"time.epoch_s": 36.0}, 2) == {"device_hours.epoch": 0.02}


def test_a_checkpoint_is_as_large_as_it_is_said_to_be(tmp_path: Path) -> None:
    detectors = [Detector(CMLConfig().student.detector) for _ in range(2)]
    model = DMLPair(*detectors)
    optimizer = build_adam(list(model.parameters()), CMLConfig().optim)
    sum(p.sum() for p in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    save_checkpoint(tmp_path, model, optimizer, RunState())
    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert checkpoint_bytes(model) == pytest.approx(written, rel=0.1)
    assert checkpoint_bytes(model) <= written


def test_a_sweep_that_does_not_fit_names_folder_need_and_room(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Single(Detector(StudentConfig().student.detector))
    few = disk_need(model, trials=2, at_once=2)
    assert few.in_all < 2**27
    must_have_room(tmp_path / "not" / "yet", few)
    many = disk_need(model, trials=10**12, at_once=2)
    with pytest.raises(RunError, match=rf"{tmp_path}/sweep: 1000000000000 trials may need .* TiB there .* are free: "):
        must_have_room(tmp_path / "sweep", many)
    assert disk_need(model, trials=0, at_once=2).in_all == 0
    more = disk_need(model, trials=2, at_once=2, confirm=4)
    assert more.in_all == few.in_all + 4 * few.each == few.of_trials + more.of_confirmation
    assert disk_need(model, trials=0, at_once=2, confirm=2).in_all == few.in_all
    with pytest.raises(RunError, match=rf"2 trials and {10**12} runs of the confirmation may need .* TiB there"):
        must_have_room(tmp_path / "sweep", disk_need(model, trials=2, at_once=2, confirm=10**12))


def test_budgets_decide_no_number() -> None:
    from ocr_ray.config import config_digest

    assert config_digest(override(CMLConfig(), ["sweep.max_hours=1", "tracking.pictures=0"])) == config_digest(
        CMLConfig()
    )
