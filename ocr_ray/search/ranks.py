"""Whether a trial's hmean early on told how it would end: what early stopping rests on, measured after the fact."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import kendalltau

from ocr_ray.search.trials import OBJECTIVE

LEAST_TRIALS = 5
"""Fewer say nothing: even a perfect order of four comes about by chance once in 24."""
LOW = 0.5
"""Kendall's tau below which stopping was not safe: one pair of trials in four or more changed places afterwards."""


@dataclass(frozen=True)
class RungRank:
    """How the order of trials at one rung agrees with that in which they ended."""

    epoch: int
    tau: float | None
    """Kendall's tau-b of hmean there with the final hmean, -1 to 1; None where all trials are alike, or too few."""


@dataclass(frozen=True)
class Ranks:
    """The rungs of a sweep. Only trials that ran to their end are compared, which early stopping did not choose at
    random: those that it ended were poor at a rung, and nobody knows what they would have reached."""

    rungs: tuple[RungRank, ...] = ()
    finished: int = 0
    """Trials compared."""
    stopped: int = 0
    """Trials that were ended early."""

    @property
    def unsafe(self) -> tuple[RungRank, ...]:
        """Rungs at which the order told too little of the end."""
        return tuple(rung for rung in self.rungs if rung.tau is not None and rung.tau < LOW)

    def metrics(self) -> dict[str, float]:
        """Names under which the sweep records them."""
        return {f"kendall_tau.epoch_{rung.epoch}": rung.tau for rung in self.rungs if rung.tau is not None}

    def lines(self) -> list[str]:
        """For a person: the figures, and in one plain sentence whether stopping early was safe."""
        if not self.rungs:
            return []
        told = [rung for rung in self.rungs if rung.tau is not None]
        was, was_not = ("was", "was not") if self.stopped else ("would have been", "would not have been")
        if not told:
            why = "too few" if self.finished < LEAST_TRIALS else "and all reached the same: no order"
            trials = f"{self.finished} trial{'s' * (self.finished != 1)} finished"
            return [f"early stopping: {trials}, {why} to say whether it {was} safe"]
        figures = ", ".join(f"{rung.tau:.2f} at epoch {rung.epoch}" for rung in told)
        lines = [
            f"early stopping: rank correlation with the final hmean (Kendall's tau, {self.finished} trials): {figures}"
        ]
        low = self.unsafe
        if low:
            pairs = (1 + (low[0].tau or 0.0)) / 2
            later = next((r.epoch for r in told if r.epoch > low[-1].epoch), None)
            safer = f"sweep.grace_epochs={later}" if later else "sweep.scheduler=none"
            lines.append(
                f"{'warning' if self.stopped else 'note'}: stopping early {was_not} safe: at epoch {low[0].epoch} only "
                f"{pairs:.0%} of the pairs of trials stood in the order in which they ended; {safer} is safer"
            )
        return lines


def hmean_by_epoch(reports: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    """What a scheduler compares: the best hmean reached, by epoch."""
    return {int(report["epoch"]): float(report[OBJECTIVE]) for report in reports}


def rank_rungs(histories: Sequence[Mapping[int, float]], rungs: Sequence[int], stopped: int) -> Ranks:
    """Compares each rung with the end.

    Args: histories are the hmeans by epoch of the trials that finished, with none empty; stopped is the number of
        those that were ended early.
    """
    final = [history[max(history)] for history in histories]
    found = []
    for rung in rungs:
        reached = [max((epoch for epoch in history if epoch <= rung), default=min(history)) for history in histories]
        there = [history[epoch] for history, epoch in zip(histories, reached, strict=True)]
        found.append(RungRank(rung, _tau(there, final)))
    return Ranks(tuple(found), len(histories), stopped)


def _tau(there: Sequence[float], final: Sequence[float]) -> float | None:
    if len(final) < LEAST_TRIALS:
        return None
    tau = float(kendalltau(there, final).statistic)
    return None if math.isnan(tau) else tau
