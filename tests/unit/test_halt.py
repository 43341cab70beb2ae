"""How a loop over runs is stopped, whatever it trains: the confirmation of a sweep, here."""

import signal
from pathlib import Path

import pytest

from ocr_ray.search import requests
from ocr_ray.search.halt import Halt, SweepStopped, interrupting, signals_given_back
from ocr_ray.tracking import Tracker


def halt_in(folder: Path, said: list[str]) -> Halt:
    return Halt(folder, "confirm", lambda running: "; ".join(sorted(running)), said.append)


def test_a_request_is_heard_taken_away_and_waits_for_the_epochs_under_way(tmp_path: Path) -> None:
    said: list[str] = []
    requests.ask_to_stop(tmp_path)  # after the trials, before the confirmation: it counts
    halt = halt_in(tmp_path, said)
    halt.trains("default config, seed 1")
    halt.trains("trial 2, seed 1")
    halt.look()
    assert requests.asked_to_stop(tmp_path) is None
    assert said == [
        "confirm: asked to stop by `ocr-ray stop`",
        "confirm: stops as soon as the epoch under way is finished in default config, seed 1; trial 2, seed 1; Ctrl-C "
        "once more stops it now, and that epoch is lost",
    ]
    halt.reported("trial 2, seed 1")
    halt.trains("trial 2, seed 1")  # its next epoch is not waited for
    halt.look()
    halt.ended("default config, seed 1")
    with pytest.raises(SweepStopped):
        halt.look()


def test_the_first_ctrl_c_asks_the_second_ends_and_then_they_mean_what_they_meant(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    halt = halt_in(tmp_path, [])
    halt.trains("a")
    with signals_given_back():
        halt.heed_signals()
        signal.raise_signal(signal.SIGINT)
        assert halt.stopping
        halt.look()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_loop_that_was_stopped_leaves_its_runs_killed(tmp_path: Path) -> None:
    with Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", "e", artifacts=tmp_path / "a") as tracker:
        run = tracker.run("r", "r")
        with pytest.raises(KeyboardInterrupt), interrupting(tracker):
            raise SweepStopped
        assert run.status == "KILLED"
