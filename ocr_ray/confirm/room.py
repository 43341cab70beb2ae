"""Whether a confirmation fits into what its sweep's budget has left, and what is said where it does not."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocr_ray.confirm.runs import ConfirmRun
from ocr_ray.search.cost import CostEstimate, duration
from ocr_ray.search.room import KEPT_AT_MOST, Cost, RunTime, budget_of, cost_of
from ocr_ray.settings import SweepConfig
from ocr_ray.stopwatch import HOUR_S

SLACK = 1.1
"""By so much a confirmation may take longer than what is left: it is foretold from the trials, and they differ."""
MORE = 1.2
"""Of what it needs, in a budget that is proposed."""
START_S = 60.0
"""Of wall time, that a resume takes before it comes to the confirmation."""


@dataclass(frozen=True)
class BudgetLeft:
    """Of a sweep whose trials have ended."""

    cfg: SweepConfig
    storage: Path
    spent: Cost
    """By all its trials, and by runs of its confirmation, over all attempts."""
    time: RunTime | None
    """What its trials took; None where they did not say."""
    at_once: int
    workers: int
    resume: str
    """What to type to go on with the sweep."""

    def need(self, runs: Sequence[ConfirmRun]) -> Cost:
        """What is left to do of these runs, as foretold by the trials."""
        if self.time is None:
            return Cost()
        left = [run.epochs_left(self.storage) for run in runs]
        return cost_of([self.time.seconds(epochs) for epochs in left if epochs], self.at_once, self.workers)

    def estimate(self) -> CostEstimate:
        """Of what follows, which no budget ends any more."""
        unbounded = dataclasses.replace(self.cfg, confirm=0, max_hours=None, max_device_hours=None)
        return CostEstimate(unbounded, 0, self.at_once, self.workers, 0, 0.0, self.spent.device_seconds)

    def candidates(self, there: int, runs_of: Callable[[int], Sequence[ConfirmRun]]) -> int | None:
        """How many of the candidates that are there can be confirmed, the best first; None: nothing can."""
        budget = budget_of(self.cfg)
        left = Cost(
            max(0.0, budget.seconds - self.spent.seconds), max(0.0, budget.device_seconds - self.spent.device_seconds)
        )
        counts = range(there, min(there, 1) - 1, -1)
        return next((count for count in counts if self.need(runs_of(count)).times(1 / SLACK).fits(left)), None)

    def told(self, runs: Sequence[ConfirmRun], fitting: int | None, there: int) -> str:
        """What people read where of all these runs only those of so many candidates fit, or none."""
        needed = self.need(runs)
        takes = f"about {duration(needed.seconds)} and {needed.device_seconds / HOUR_S:.2g} device-hours"
        whole = f"{len(runs)} runs would take {takes}, more than {self._limits(needed)} leaves"
        told = f"skipped: {whole}" if fitting is None else f"{fitting} of {there} candidates: all {whole}"
        return f"{told}; to make it up: {self.resume} {' '.join(self._larger(needed))}"

    def _limits(self, needed: Cost) -> str:
        return " or ".join(f"{key}={limit:g}" for key, limit, _, _ in self._exceeded(needed))

    def _larger(self, needed: Cost) -> list[str]:
        """Budgets that keep room for all of it, from the trials as well."""
        larger = []
        for key, _, spent, need in self._exceeded(needed):
            hours = max(spent + need * MORE, need * MORE / KEPT_AT_MOST) / HOUR_S
            digits = 10 ** (1 - math.floor(math.log10(hours)))
            larger.append(f"{key}={math.ceil(hours * digits) / digits:g}")
        return larger

    def _exceeded(self, needed: Cost) -> list[tuple[str, float, float, float]]:
        """Of each limit that does not have room for it: key, hours, seconds spent, seconds needed."""
        hours, device = self.cfg.max_hours, self.cfg.max_device_hours
        all_four = (
            ("sweep.max_hours", hours, self.spent.seconds + START_S, needed.seconds),
            ("sweep.max_device_hours", device, self.spent.device_seconds, needed.device_seconds),
        )
        return [
            (key, limit, spent, need)
            for key, limit, spent, need in all_four
            if limit is not None and spent + need / SLACK > limit * HOUR_S
        ]
