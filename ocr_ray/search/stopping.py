"""When a sweep ends trials early: its rule, with what the settings leave open filled in, and how people are told of it.

Halving among few trials lets the noise between seeds decide, so `auto` takes the median rule for small sweeps: it asks
for less, and asks later. From 16 trials on, a ninth of the epochs tells enough to spend the rest on a third of them.

What carries it out is in `search/schedulers.py`; a page about a sweep reads this file alone, and needs no Ray.
"""

from dataclasses import dataclass
from typing import Literal, assert_never

from ocr_ray.settings import SweepConfig

HALVES_FROM = 16
"""Trials from which on `auto` is `asha`. Below, 13 to 15 included, a rung would leave five of them or fewer."""
BELOW = "below the"
"""So begins why a rule has ended a trial, and nothing else does."""

Rule = Literal["asha", "median", "pbt", "none"]


@dataclass(frozen=True)
class Stopping:
    """A sweep's rule, with what its settings leave open filled in. Epochs are as the trials report them."""

    rule: Rule
    first: int
    """No trial is ended before, and none at its last epoch; where trials are compared by rungs, the first of them."""
    factor: int
    epochs: int
    """Of a whole trial."""

    @property
    def ends_early(self) -> bool:
        """Whether a trial can be ended before its last epoch."""
        return self.rule in ("asha", "median") and self.first < self.epochs

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs before the last one at which the order of trials is held against that of their end. `asha`: those at
        which it compares them. The median rule does so after each; the first of them and its doubles stand for all.
        `none`: where `asha` would have. `pbt`: none, since the weights of an early hmean may not be those of the final
        one; none either with a second objective."""
        if self.rule == "pbt":
            return ()
        factor = 2 if self.rule == "median" else self.factor
        rungs, at = [], self.first
        while at < self.epochs:
            rungs.append(at)
            at *= factor
        return tuple(rungs)

    @property
    def decides_at(self) -> tuple[int, ...]:
        """Epochs after which the rule may end a trial: under `asha` its rungs, under `median` every one from the first
        to the last but one."""
        if not self.ends_early:
            return ()
        return tuple(range(self.first, self.epochs)) if self.rule == "median" else self.rungs

    def in_words(self) -> str:
        """Under which rule trials were ended, in a few words."""
        if not self.ends_early:
            return "no early stopping"
        if self.rule == "median":
            return f"median stopping from epoch {self.first} on"
        return f"asha keeping the best 1/{self.factor} at epoch {', '.join(map(str, self.rungs))}"

    def one_line(self) -> str:
        """What a person reads as the sweep starts."""
        if not self.ends_early:
            return "stopping: every trial runs to its end"
        match self.rule:
            case "asha":
                rungs = ", ".join(map(str, self.rungs))
                return f"stopping: asha keeps the best 1/{self.factor} at epoch {rungs} of {self.epochs}"
            case "median":
                return f"stopping: median, from epoch {self.first} of {self.epochs} on"
            case "pbt" | "none":
                raise AssertionError("ends nothing early")
            case _:
                assert_never(self.rule)


def stopping(cfg: SweepConfig, epochs: int, every_epochs: int) -> Stopping:
    """The rule of a sweep.

    Args: epochs is the length of a whole trial, every_epochs the distance of its evaluations: where the first rung is
        not given it lies on one, so that trials are compared by what they reach there.
    """
    by_size: Rule = "asha" if cfg.trials >= HALVES_FROM else "median"
    rule: Rule = by_size if cfg.scheduler == "auto" else cfg.scheduler
    if cfg.against is not None:
        return Stopping("none", epochs, cfg.reduction_factor, epochs)  # by hmean alone the cheap ones would end first
    share = 3 if rule == "median" else 9
    least = -(-epochs // share)
    first = -(-least // every_epochs) * every_epochs if cfg.grace_epochs is None else cfg.grace_epochs
    return Stopping(rule, first, cfg.reduction_factor, epochs)


def ended_by_rule(end: str, reason: str) -> bool:
    """Whether the rule has ended the trial of that end: not a person, not a budget. Older sweeps gave no reason."""
    return end == "stopped early" and (not reason or reason.startswith(BELOW))
