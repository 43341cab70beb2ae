"""What a sweep is going to cost: by its first trial's step time as soon as that is known, then by all that is seen."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from ocr_ray.progress import RunTiming
from ocr_ray.search.disk import gib
from ocr_ray.search.room import Cost, budget_of, cost_of, kept_candidates, runs_of
from ocr_ray.settings import SweepConfig
from ocr_ray.stopwatch import HOUR_S


@dataclass(frozen=True)
class Estimate:
    """Of a whole sweep, from its start to its end; an upper bound where trials may be ended early."""

    seconds: float
    left_s: float
    device_seconds: float
    step_s: float
    confirmation: Cost = field(default_factory=Cost)
    """What it has of a confirmation, within the budget."""
    candidates: int = 0
    """So many are confirmed."""


@dataclass(frozen=True)
class CostEstimate:
    """Args: trials are still to end at this attempt's start; at_once of them run at a time, each of so many workers;
    disk is in bytes; spent_s and spent_device_s are of earlier attempts; confirmed are runs of the confirmation that
    are done, confirm_disk is what those to come write; control is the run that no budget ends, as people see it."""

    cfg: SweepConfig
    trials: int
    at_once: int
    workers: int
    disk: int
    spent_s: float = 0.0
    spent_device_s: float = 0.0
    confirmed: int = 0
    confirm_disk: int = 0
    control: str = ""

    def of(self, timings: Sequence[RunTiming], elapsed_s: float) -> Estimate | None:
        """From what is known of this attempt's trials after `elapsed_s`; None before the first has trained a little.

        A trial that has not ended takes as long as those that were measured, in the mean: its start, its steps and
        such evaluations as they have had.
        """
        measured = [t.whole_s for t in timings if t.whole_s is not None]
        if not measured:
            return None
        whole = fmean(measured)
        ended = [t.seconds for t in timings if t.ended]
        at_work = [t for t in timings if not t.ended]
        open_now = [max(0.0, (t.whole_s or whole) - t.seconds) for t in at_work]
        to_start = max(0, self.trials - len(timings))
        left = sum(open_now) + to_start * whole
        running = [t.seconds for t in at_work]
        device = self.spent_device_s + (sum(ended) + sum(running) + left) * self.workers
        left_s = max([left / self.at_once, *open_now])  # no sooner than the longest that still runs
        steps = [t.training_s / t.steps for t in timings if t.training_s is not None and t.steps]
        searched = Estimate(self.spent_s + elapsed_s + left_s, left_s, device, fmean(steps or [0.0]))
        control = next((left for left, t in zip(open_now, at_work, strict=True) if t.run == self.control), 0.0)
        return self._bounded(searched, whole, self.spent_s + elapsed_s + control)

    def note(self, timings: Sequence[RunTiming], elapsed_s: float) -> str:
        """What the head of the live lines adds; nothing before anything is known."""
        found = self.of(timings, elapsed_s)
        if found is None:
            return ""
        also = " with the confirmation" if found.candidates else ""
        return f", at most {duration(found.left_s)} left{also}, {found.device_seconds / HOUR_S:.2g} device-hours in all"

    def sentence(self, timings: Sequence[RunTiming], elapsed_s: float) -> str | None:
        """The line that is said once."""
        found = self.of(timings, elapsed_s)
        if found is None:
            return None
        return (
            f"sweep: at most {duration(found.seconds)}, {found.device_seconds / HOUR_S:.2g} device-hours and "
            f"{gib(self.disk)} of disk{self._of_which(found)}, by {found.step_s:.2g} s a step in its first trial"
        )

    def _of_which(self, found: Estimate) -> str:
        if not self.cfg.confirm:
            return ""
        if not found.candidates:
            return ", without the confirmation, for which the budget has no room"
        of = f" (of {found.candidates} in place of {self.cfg.confirm})" if found.candidates < self.cfg.confirm else ""
        its = found.confirmation
        return (
            f", of which the confirmation{of} {duration(its.seconds)}, {its.device_seconds / HOUR_S:.2g} device-hours "
            f"and {gib(self.confirm_disk)}"
        )

    def _bounded(self, searched: Estimate, whole: float, least_s: float) -> Estimate:
        """The trials within what the budget leaves beside the confirmation, which takes runs of so many seconds, but
        not in less than `least_s`; and with it."""

        def need(candidates: int) -> Cost:
            runs = max(0, runs_of(self.cfg, candidates) - self.confirmed)
            return cost_of([whole] * runs, self.at_once, self.workers)

        candidates = kept_candidates(self.cfg, need)
        its, budget = need(candidates), budget_of(self.cfg)
        share = min(
            1.0,
            (budget.seconds - its.seconds) / searched.seconds,
            (budget.device_seconds - its.device_seconds) / searched.device_seconds,
        )
        share = max(share, min(1.0, least_s / searched.seconds))
        seconds = searched.seconds * share
        left_s = max(0.0, searched.left_s - (searched.seconds - seconds))
        return Estimate(
            seconds + its.seconds,
            left_s + its.seconds,
            searched.device_seconds * share + its.device_seconds,
            searched.step_s,
            its,
            candidates,
        )


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 1.5 * HOUR_S else f"{seconds / HOUR_S:.1f} h"
