"""What a sweep is going to cost: by its first trial's step time as soon as that is known, then by all that is seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ocr_ray.progress import RunTiming
from ocr_ray.search.disk import gib
from ocr_ray.settings import SweepConfig
from ocr_ray.stopwatch import HOUR_S


@dataclass(frozen=True)
class Estimate:
    """Of a whole sweep, from its start to its end; an upper bound where trials may be ended early."""

    seconds: float
    left_s: float
    device_seconds: float
    step_s: float


@dataclass(frozen=True)
class CostEstimate:
    """Args: trials are still to end at this attempt's start; at_once of them run at a time, each of so many workers;
    disk is in bytes; spent_s and spent_device_s are of earlier attempts."""

    cfg: SweepConfig
    trials: int
    at_once: int
    workers: int
    disk: int
    spent_s: float = 0.0
    spent_device_s: float = 0.0

    def of(self, timings: Sequence[RunTiming], elapsed_s: float) -> Estimate | None:
        """From what is known of this attempt's runs after `elapsed_s`; None before the first one has trained a little.

        A trial that has not ended takes as long as those that were measured, in the mean: its start, its steps and
        such evaluations as they have had.
        """
        measured = [t.whole_s for t in timings if t.whole_s is not None]
        if not measured:
            return None
        whole = fmean(measured)
        ended = [t.seconds for t in timings if t.ended]
        open_now = [max(0.0, (t.whole_s or whole) - t.seconds) for t in timings if not t.ended]
        to_start = max(0, self.trials - len(timings))
        left = sum(open_now) + to_start * whole
        running = [t.seconds for t in timings if not t.ended]
        device = self.spent_device_s + (sum(ended) + sum(running) + left) * self.workers
        left_s = max([left / self.at_once, *open_now])  # no sooner than the longest that still runs
        steps = [t.training_s / t.steps for t in timings if t.training_s is not None and t.steps]
        return self._bounded(Estimate(self.spent_s + elapsed_s + left_s, left_s, device, fmean(steps or [0.0])))

    def note(self, timings: Sequence[RunTiming], elapsed_s: float) -> str:
        """What the head of the live lines adds; nothing before anything is known."""
        found = self.of(timings, elapsed_s)
        if found is None:
            return ""
        return f", at most {duration(found.left_s)} left, {found.device_seconds / HOUR_S:.2g} device-hours in all"

    def sentence(self, timings: Sequence[RunTiming], elapsed_s: float) -> str | None:
        """The line that is said once."""
        found = self.of(timings, elapsed_s)
        if found is None:
            return None
        return (
            f"sweep: at most {duration(found.seconds)}, {found.device_seconds / HOUR_S:.2g} device-hours and "
            f"{gib(self.disk)} of disk, by {found.step_s:.2g} s a step in its first trial"
        )

    def _bounded(self, found: Estimate) -> Estimate:
        hours, device = self.cfg.max_hours, self.cfg.max_device_hours
        share = min(
            1.0,
            1.0 if hours is None else hours * HOUR_S / found.seconds,
            1.0 if device is None else device * HOUR_S / found.device_seconds,
        )
        seconds = found.seconds * share
        left_s = max(0.0, found.left_s - (found.seconds - seconds))
        return Estimate(seconds, left_s, found.device_seconds * share, found.step_s)


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 1.5 * HOUR_S else f"{seconds / HOUR_S:.1f} h"
