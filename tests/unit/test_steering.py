"""What people ask of a sweep, without a cluster: signals and requests in, the end of Tune's loop out."""

import dataclasses
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocr_ray.search import requests
from ocr_ray.search.halt import SweepStopped
from ocr_ray.search.steering import Steering
from ocr_ray.search.trials import TrialBook


class Sweep:
    """Two trials under way, the second one still starting its workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.at_once = 0
        self.book = TrialBook(folder, {})
        self.steering = Steering(folder, self.book, self.said.append, self.count)
        for number, trial_id in ((1, "a"), (2, "b")):
            self.steering.trial_starts(trial_id)
            self.book.start(trial_id, number, {})
        self.steering.trial_trains("a")

    def count(self) -> None:
        self.at_once += 1


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield Sweep(tmp_path)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_first_ctrl_c_waits_for_the_reports_under_way_and_says_so(sweep: Sweep) -> None:
    sweep.steering.heed_signals()
    sweep.steering.after_step()
    signal.raise_signal(signal.SIGINT)
    sweep.steering.after_step()
    sweep.steering.after_step()
    (line,) = sweep.said
    assert "the epoch under way is finished in trial 1; Ctrl-C once more stops it now" in line
    sweep.steering.trial_reported("b")
    sweep.steering.after_step()
    sweep.steering.trial_reported("a")
    with pytest.raises(SweepStopped):
        sweep.steering.after_step()
    assert sweep.at_once == 0


def test_a_trial_that_ends_without_a_report_is_not_waited_for(sweep: Sweep) -> None:
    sweep.steering.heed_signals()
    signal.raise_signal(signal.SIGINT)
    sweep.steering.after_step()
    sweep.steering.trial_ended("a")
    with pytest.raises(SweepStopped):
        sweep.steering.after_step()


def test_where_nothing_trains_nothing_is_waited_for(sweep: Sweep) -> None:
    sweep.steering.trial_ended("a")
    sweep.steering.heed_signals()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(SweepStopped):
        sweep.steering.after_step()
    assert sweep.said == []


def test_the_second_ctrl_c_and_sigterm_are_an_interrupt_at_once(sweep: Sweep) -> None:
    sweep.steering.heed_signals()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert sweep.at_once == 2


def test_a_request_to_stop_is_a_ctrl_c_and_is_heard_once(sweep: Sweep) -> None:
    requests.ask_to_stop(sweep.folder)
    sweep.steering.after_step()
    assert sweep.steering.stopping
    assert requests.asked_to_stop(sweep.folder) is None
    assert len(sweep.said) == 2


def test_a_request_that_an_earlier_driver_did_not_hear_stops_no_later_one(sweep: Sweep) -> None:
    requests.ask_to_stop(sweep.folder)
    later = Steering(sweep.folder, sweep.book, sweep.said.append)
    later.after_step()
    assert not later.stopping


def test_a_trial_ends_at_its_report_when_that_was_asked_for(sweep: Sweep) -> None:
    assert not sweep.steering("b", {})
    requests.ask_to_stop(sweep.folder, 2)
    assert sweep.steering("b", {})
    assert not sweep.steering("a", {})
    assert not sweep.steering.stopping
    requests.done(sweep.folder, 2)
    assert not sweep.steering("b", {})


@pytest.mark.parametrize(
    ("end", "again"), [("finished", True), ("stopped early", True), ("stopped by hand", True), ("failed", False)]
)
def test_a_trial_that_had_ended_ends_again_at_once(end: str, again: bool, tmp_path: Path) -> None:
    book = TrialBook(tmp_path, {})
    book.change(dataclasses.replace(book.start("a", 1, {}), end=end))  # type: ignore[arg-type]
    steering = Steering(tmp_path, book, print)
    steering.trial_starts("a")
    assert steering("a", {}) == again
