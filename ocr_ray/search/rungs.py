"""What a scheduler has done to a trial: how many of its decisions the trial came to, and why it was ended, in words."""

from collections.abc import Sequence

from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from ocr_ray.search.schedulers import Judge
from ocr_ray.search.stopping import BELOW

SHARES = {2: "half", 3: "third", 4: "quarter", 5: "fifth"}


def rung_reached(decides_at: Sequence[int], epoch: int) -> int:
    """How many of the epochs at which a rule decides, `Stopping.decides_at`, lie at or before `epoch`."""
    return sum(milestone <= epoch for milestone in decides_at)


def why_ended(scheduler: TrialScheduler, trial_id: str, epoch: int) -> str:
    """Why it ended that trial after that epoch, in a few words; asked before it forgets the trial."""
    rule = _rule(scheduler)
    if isinstance(rule, AsyncHyperBandScheduler):
        for bracket in rule._brackets:
            for milestone, recorded in bracket._rungs:  # the latest rung first
                if milestone <= epoch and trial_id in recorded:
                    others = {name: value for name, value in recorded.items() if name != trial_id}
                    cutoff, share = bracket.cutoff(others), round(bracket.rf)
                    figures = f" ({recorded[trial_id]:.4f} < {cutoff:.4f})" if cutoff is not None else ""
                    return f"{BELOW} best {SHARES.get(share, f'1/{share}')} at epoch {milestone}{figures}"
    if isinstance(rule, MedianStoppingRule):
        return f"{BELOW} median of the others' means at epoch {epoch}"
    return f"ended by {type(rule).__name__} at epoch {epoch}"


def _rule(scheduler: TrialScheduler) -> TrialScheduler:
    return scheduler.rule if isinstance(scheduler, Judge) else scheduler
