"""The live lines: what they say, and that they move without news."""

import io
import threading
import time

import pytest
from rich.console import Console

from ocr_ray.progress import LiveFeed, Phase, ProgressEvent


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def feed_to(text: io.StringIO, clock: Clock | None = None, terminal: bool = False) -> LiveFeed:
    console = Console(file=text, force_terminal=terminal, width=200, color_system=None)
    return LiveFeed(console, plain_every_s=0.05, clock=clock or time.monotonic)


@pytest.mark.parametrize(
    ("event", "fraction"),
    [
        (ProgressEvent("a", "starting", epochs=4), 0.0),
        (ProgressEvent("a", "new parts", epochs=4, step=30, steps=60), 0.0),
        (ProgressEvent("a", epoch=0, epochs=4, step=1, steps=2), 0.125),
        (ProgressEvent("a", epoch=3, epochs=4, step=2, steps=2), 1.0),
        (ProgressEvent("a", epoch=4, epochs=4, step=1, steps=2), 1.0),
        (ProgressEvent("a", "stopped early", epoch=1, epochs=4), 1.0),
        (ProgressEvent("a", "stopped by budget", epoch=1, epochs=4), 1.0),
        (ProgressEvent("a"), 0.0),
    ],
)
def test_fraction_is_the_share_of_the_run_that_is_done(event: ProgressEvent, fraction: float) -> None:
    assert event.fraction == fraction


def test_a_slow_start_counts_its_seconds() -> None:
    clock = Clock()
    feed = feed_to(io.StringIO(), clock)
    feed.stage("sweep", 2)
    feed.put(ProgressEvent("trial 1", "starting"))
    clock.now += 12
    assert feed.plain_line() == "0:12 sweep, 0 of 2 ended; trial 1: starting workers ... 12 s"


def test_a_line_tells_epoch_step_loss_hmean_and_keeps_the_last_known() -> None:
    feed = feed_to(io.StringIO(), Clock())
    feed.stage("train dml", 1)
    feed.put(ProgressEvent("teacher", epoch=1, epochs=4, step=3, steps=8, loss=2.5, hmean=0.25))
    feed.put(ProgressEvent("teacher", epoch=1, epochs=4, step=4, steps=8, loss=2.0))
    assert feed.plain_line(clock=False) == "train dml; teacher: epoch 1/4 step 4/8 loss 2.000 hmean 0.2500"


def test_ended_trials_leave_their_best_and_a_late_event_does_not_bring_them_back() -> None:
    feed = feed_to(io.StringIO(), Clock())
    feed.stage("sweep", 2)
    feed.put(ProgressEvent("trial 1", epoch=1, epochs=2, hmean=0.5))
    feed.put(ProgressEvent("trial 1", "done", hmean=0.6))
    feed.put(ProgressEvent("trial 2", "starting"))
    feed.put(ProgressEvent("trial 1", epoch=1, epochs=2, step=1, steps=2, hmean=0.1))
    assert feed.plain_line(clock=False) == "sweep, 1 of 2 ended, best hmean 0.6000; trial 2: starting workers"


def test_the_best_does_not_fall_when_a_trial_does() -> None:
    feed = feed_to(io.StringIO(), Clock())
    feed.stage("sweep", 2)
    feed.put(ProgressEvent("trial 1", epoch=1, epochs=3, hmean=0.4789))
    feed.put(ProgressEvent("trial 2", epoch=1, epochs=3, hmean=0.4))
    feed.put(ProgressEvent("trial 1", epoch=2, epochs=3, hmean=0.4658))
    line = feed.plain_line(clock=False)
    assert "best hmean 0.4789" in line
    assert "trial 1: epoch 2/3 hmean 0.4658" in line


def test_a_trial_that_starts_again_is_shown_again() -> None:
    feed = feed_to(io.StringIO(), Clock())
    feed.stage("sweep", 2)
    feed.put(ProgressEvent("trial 1", "failed"))
    feed.put(ProgressEvent("trial 1", "starting"))
    assert "trial 1: starting workers" in feed.plain_line()


def test_time_left_of_several_runs_is_an_upper_bound_from_what_is_done() -> None:
    clock = Clock()
    feed = feed_to(io.StringIO(), clock)
    feed.stage("sweep", 4)
    feed.put(ProgressEvent("trial 1", "done"))
    feed.put(ProgressEvent("trial 2", epoch=1, epochs=2))
    clock.now += 30
    # 1.5 of 4 trials in 30 s: 50 s for the rest.
    assert feed.plain_line().endswith("at most 0:50 left")


def test_time_left_of_a_run_comes_from_its_training_not_from_its_start() -> None:
    clock, text = Clock(), io.StringIO()
    feed = feed_to(text, clock, terminal=True)
    feed.stage("train", 1)
    feed.put(ProgressEvent("r", "starting", epochs=4))
    clock.now += 60
    feed.put(ProgressEvent("r", epoch=0, epochs=4))
    clock.now += 10
    feed.put(ProgressEvent("r", epoch=1, epochs=4))
    clock.now += 5
    with feed:
        pass
    assert "0:25 left" in text.getvalue()  # 10 s a quarter, 5 s of the second one over


def test_a_stage_drops_the_lines_of_the_one_before() -> None:
    feed = feed_to(io.StringIO(), Clock())
    feed.stage("train dml")
    feed.put(ProgressEvent("teacher", "done", hmean=0.9))
    feed.stage("sweep", 4)
    assert feed.plain_line(clock=False) == "sweep, 0 of 4 ended"


def test_without_a_terminal_plain_lines_come_at_intervals_and_stop_with_the_block() -> None:
    text = io.StringIO()
    began = time.monotonic()
    with feed_to(text) as feed:
        feed.stage("train")
        for step in range(40):
            feed.put(ProgressEvent("r", epoch=0, epochs=1, step=step, steps=40))
            time.sleep(0.01)
    printed = text.getvalue().splitlines()
    assert 2 <= len(printed) <= 1 + (time.monotonic() - began) / 0.05  # 40 events in 0.4 s or more
    assert all("r: epoch 0/1 step" in line for line in printed)
    assert "\x1b" not in text.getvalue()
    time.sleep(0.15)
    assert text.getvalue().splitlines() == printed


def test_nothing_is_printed_twice_without_news() -> None:
    text = io.StringIO()
    with feed_to(text) as feed:
        feed.put(ProgressEvent("r", epoch=0, epochs=1))
        time.sleep(0.5)
    assert len(text.getvalue().splitlines()) == 1


@pytest.mark.parametrize("terminal", [True, False])
def test_many_threads_may_put_and_say(terminal: bool) -> None:
    text = io.StringIO()
    phases: tuple[Phase, ...] = ("training", "evaluating")

    def work(name: str) -> None:
        for step in range(100):
            feed.put(ProgressEvent(name, phases[step % 2], epoch=0, epochs=1, step=step, steps=100, loss=1.0))
            if step % 20 == 0:
                feed.say(f"{name} says [bold]{step}")

    with feed_to(text, terminal=terminal) as feed:
        threads = [threading.Thread(target=work, args=(f"r{i}",), daemon=True) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)
    said = [f"r{i} says [bold]{step}" for i in range(4) for step in range(0, 100, 20)]
    assert all(line in text.getvalue() for line in said)
