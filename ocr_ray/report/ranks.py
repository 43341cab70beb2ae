"""Whether a trial's hmean at a rung told how it would end, which is what stopping early rests on."""

import math
from dataclasses import dataclass

from scipy.stats import kendalltau

from ocr_ray.report.contents import Sweep, Trial

LEAST_TRIALS = 5
"""Of fewer even a perfect order comes about by chance now and then."""
LOW = 0.5
"""Kendall's tau below which stopping was not safe: a pair of trials in four or more changed places afterwards."""


@dataclass(frozen=True)
class RungRank:
    """Kendall's tau-b of the best hmean at a rung with the final one, over trials that ran to their end."""

    epoch: int
    tau: float


def rank_rungs(sweep: Sweep) -> tuple[RungRank, ...]:
    """Of each rung; empty where too few trials finished, or all are alike."""
    finished = [t for t in sweep.compared if t.end == "finished" and t.curve]
    if len(finished) < LEAST_TRIALS:
        return ()
    final = [t.hmean or 0.0 for t in finished]
    found = [(rung, float(kendalltau([_at(t, rung) for t in finished], final).statistic)) for rung in sweep.rungs]
    return tuple(RungRank(rung, tau) for rung, tau in found if not math.isnan(tau))


def rank_sentence(sweep: Sweep) -> str:
    """For a person; empty where nothing can be said."""
    ranks = rank_rungs(sweep)
    if not ranks:
        return ""
    count = sum(t.end == "finished" for t in sweep.trials)
    figures = ", ".join(f"{rank.tau:.2f} at epoch {rank.epoch}" for rank in ranks)
    said = f"Over the {count} trials that ran to their end, the order at a rung agrees with the final one by {figures}"
    low = next((rank for rank in ranks if rank.tau < LOW), None)
    was, was_not = "would have been", "would not have been"
    if any(t.was_stopped for t in sweep.trials):
        was, was_not = "was", "was not"
    verdict = f"stopping at epoch {low.epoch} {was_not} safe" if low else f"stopping early {was} safe"
    return f"{said} (Kendall's tau, 1 for the same order): {verdict}."


def _at(trial: Trial, rung: int) -> float:
    return max((e.best or 0.0 for e in trial.curve if e.number <= rung), default=0.0)
