"""What a confirmation takes, and the room that a sweep's budget keeps for it.

Within `sweep.max_hours` and `sweep.max_device_hours` the trials end early enough for the confirmation to fit, by the
measured time of a run. They keep at least half of each: where the whole confirmation takes more, as many of the
candidates are confirmed as fit into the other half, and where not even one does, no room is kept.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ocr_ray.search.history import reports_of
from ocr_ray.search.trials import TrialBook, TrialSummary
from ocr_ray.settings import SweepConfig
from ocr_ray.stopwatch import HOUR_S

KEPT_AT_MOST = 0.5
"""Share of a budget that is kept from the trials."""
KEPT_MORE = 1.05
"""Beside the epochs under way: runs differ a little."""


@dataclass(frozen=True)
class Cost:
    """Seconds of wall time, and seconds times workers."""

    seconds: float = 0.0
    device_seconds: float = 0.0

    def times(self, factor: float) -> "Cost":
        """Of both."""
        return Cost(self.seconds * factor, self.device_seconds * factor)

    def plus(self, other: "Cost") -> "Cost":
        """Of both."""
        return Cost(self.seconds + other.seconds, self.device_seconds + other.device_seconds)

    def fits(self, room: "Cost") -> bool:
        """Whether there is that much, of both."""
        return self.seconds <= room.seconds and self.device_seconds <= room.device_seconds


def budget_of(cfg: SweepConfig) -> Cost:
    """What a sweep may take; without end where nothing is said."""
    hours, device = cfg.max_hours, cfg.max_device_hours
    return Cost(math.inf if hours is None else hours * HOUR_S, math.inf if device is None else device * HOUR_S)


def cost_of(runs: Sequence[float], at_once: int, workers: int) -> Cost:
    """Of runs of so many seconds and workers each, of which so many run at a time: each starts when one has ended."""
    ends = [0.0] * max(1, at_once)
    for seconds in runs:
        heapq.heapreplace(ends, ends[0] + seconds)
    return Cost(max(ends), sum(runs) * workers)


def runs_of(cfg: SweepConfig, candidates: int) -> int:
    """Of a confirmation of so many candidates, the default config's included; the start's is an evaluation."""
    return (candidates + 1) * cfg.seeds if candidates else 0


def kept_candidates(cfg: SweepConfig, need: Callable[[int], Cost]) -> int:
    """For how many candidates room is kept, when that many `need` so much."""
    return most(cfg.confirm, need, budget_of(cfg).times(KEPT_AT_MOST))


def most(candidates: int, need: Callable[[int], Cost], room: Cost) -> int:
    """As many of the candidates as fit; 0 where not even one does."""
    return next((count for count in range(candidates, 0, -1) if need(count).fits(room)), 0)


@dataclass(frozen=True)
class RunTime:
    """What a run takes, as trials have shown."""

    start_s: float
    """From its start to that of its first epoch."""
    epoch_s: float

    def seconds(self, epochs: int) -> float:
        """Of a run of so many epochs."""
        return self.start_s + epochs * self.epoch_s


class RunTimes:
    """Of the trials of the sweep in `folder`. Each is read again only when it has reported."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[int, RunTime | None]] = {}

    def mean(self, trials: Sequence[TrialSummary]) -> RunTime | None:
        """None before any has reported."""
        for trial in trials:
            if self._known.get(trial.trial_id, (0, None))[0] != trial.epochs:
                self._known[trial.trial_id] = trial.epochs, self._of(trial)
        times = [time for _, time in self._known.values() if time is not None]
        return RunTime(fmean(t.start_s for t in times), fmean(t.epoch_s for t in times)) if times else None

    def _of(self, trial: TrialSummary) -> RunTime | None:
        reports = [r for r in reports_of(self._folder, trial.trial_id) if r["epoch"] <= trial.epochs]
        epochs = [float(r["time.epoch_s"]) for r in reports if "time.epoch_s" in r]
        return RunTime(max(0.0, trial.seconds - sum(epochs)), fmean(epochs)) if epochs else None


@dataclass(frozen=True)
class KeptRoom:
    """What the trials of the sweep have to leave of its budget.

    Args: runs of so many epochs and workers, at_once of them at a time; confirmed were done before.
    """

    cfg: SweepConfig
    book: TrialBook
    times: RunTimes
    epochs: int
    workers: int
    at_once: int
    confirmed: int = 0

    def of_now(self) -> Cost:
        """By what is known of runs by now; nothing before anything is, or without a confirmation."""
        if not self.cfg.confirm or (self.cfg.max_hours is None and self.cfg.max_device_hours is None):
            return Cost()
        time = self.times.mean(self.book.trials)
        if time is None:
            return Cost()
        whole = time.seconds(self.epochs)

        def need(candidates: int) -> Cost:
            runs = max(0, runs_of(self.cfg, candidates) - self.confirmed)
            return cost_of([whole] * runs, self.at_once, self.workers)

        kept = need(kept_candidates(self.cfg, need))
        if not kept.seconds:
            return kept
        under_way = Cost(time.epoch_s, time.epoch_s * self.workers * self.at_once)
        return kept.times(KEPT_MORE).plus(under_way)
