"""A sweep on learning curves that are known: the product's searchers and schedulers, and no training.

Trials come from `build_searcher` and `first_trials`, and `build_scheduler` ends them, as in Tune's loop; only time is
made up: an epoch takes as long in every trial but for a tenth. What counts is epochs.
"""

import dataclasses
import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.tune.experiment import Experiment, Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import SearchAlgorithm, Searcher, SearchGenerator

from benchmarks.landscapes import Curve, Landscape
from ocr_ray.config import CMLConfig
from ocr_ray.distributions import Scalar
from ocr_ray.search.first import FirstTrials, first_trials
from ocr_ray.search.schedulers import build_scheduler
from ocr_ray.search.searchers import build_searcher
from ocr_ray.search.stopping import Stopping, stopping
from ocr_ray.search.trial import OBJECTIVE, plain_value
from ocr_ray.settings import SweepConfig
from ocr_ray.spaces import SearchSpace
from ocr_ray.typed import with_values

ENDLESS = 100_000
"""Trials of a sweep that its budget ends."""
Steps = NDArray[np.float64]


@dataclass(frozen=True)
class Course:
    """A sweep by epochs spent in all its trials, from 0 to its budget; where it ends before, the last value stays."""

    hmean: Steps
    """The best that any trial has reached: of the weights that the sweep would hand out at that moment. NaN at 0."""
    expected: Steps
    """What the trial with those weights reaches with a fresh seed, trained to its end."""
    spent: int
    """Epochs at its own end, or the budget."""
    trials: int
    """That were started."""


@dataclass(frozen=True)
class Plan:
    """What a sweep of these settings does, whatever its seed."""

    sweep: SweepConfig
    space: SearchSpace
    first: FirstTrials
    rule: Stopping


def plan_of(space: SearchSpace, own: Mapping[str, Scalar], epochs: int, **sweep: Any) -> Plan:
    """For a CML config with these values of its own, evaluated each epoch. Args: sweep are settings of `sweep.*`."""
    settings = {f"sweep.{key}": value for key, value in sweep.items()}
    length = {"optim.epochs": epochs, "eval.every_epochs": 1}
    cfg = with_values(CMLConfig(), {**own, **length, **settings}, "benchmark")
    return Plan(cfg.sweep, space, first_trials(cfg, space), stopping(cfg.sweep, epochs, every_epochs=1))


def simulate(plan: Plan, seed: int, landscape: Landscape, at_once: int, budget: int, limit: int = ENDLESS) -> Course:
    """A sweep of at most `limit` trials, whatever its settings say.

    So `sweep.trials` says which rule and how many neighbours the sweep takes, and the budget how long it goes on.
    Tune's loop asks and tells scheduler and searcher in this order.
    """
    space = plan.space
    scheduler = build_scheduler(plan.rule, plan.first.control)
    scheduler.set_search_properties(OBJECTIVE, "max")
    search = _algorithm(plan, seed, at_once, limit)
    luck = np.random.default_rng((seed, 2))
    running: list[tuple[float, int, int, Trial, Curve]] = []
    record = _Record(budget)
    number, now = 0, 0.0
    while record.spent < budget:
        while len(running) < at_once and (trial := search.next_trial()) is not None:
            curve = landscape.curve(values_of(trial, space), luck_of(seed, number))
            scheduler.on_trial_add(None, trial)  # type: ignore[arg-type]  # no rule of ours looks at Tune's loop
            heapq.heappush(running, (now + _epoch_time(luck), number, 1, trial, curve))
            number += 1
        if not running:
            break
        now, which, epoch, trial, curve = heapq.heappop(running)
        record.epoch(curve, epoch)
        result = {"epoch": epoch, "training_iteration": epoch, OBJECTIVE: curve.best[epoch - 1]}
        decision = scheduler.on_trial_result(None, trial, dict(result))  # type: ignore[arg-type]
        if decision != TrialScheduler.STOP:
            search.on_trial_result(trial.trial_id, dict(result))
            if epoch < plan.rule.epochs:
                heapq.heappush(running, (now + _epoch_time(luck), which, epoch + 1, trial, curve))
                continue
        trial.set_status(Trial.TERMINATED)
        scheduler.on_trial_complete(None, trial, dict(result))  # type: ignore[arg-type]
        search.on_trial_complete(trial.trial_id, dict(result))
    return record.course(number)


def plain_rule(curves: Callable[[int], Curve], epochs: int, budget: int, keep: float) -> Course:
    """'Train all for one epoch, keep the best K', with as many trials as the budget holds: K of them is `keep`.

    Args: curves gives the trials in the order of their draw; keep is above 0 and below 1.
    """
    record = _Record(budget)
    number, kept = plain_plan(epochs, budget, keep)
    drawn = [curves(n) for n in range(number)]
    for curve in drawn:
        record.epoch(curve, 1)
    best = sorted(range(number), key=lambda n: (-drawn[n].best[0], n))[:kept]
    for n in best:
        for epoch in range(2, epochs + 1):
            record.epoch(drawn[n], epoch)
    return record.course(number)


def plain_plan(epochs: int, budget: int, keep: float) -> tuple[int, int]:
    """How many trials the plain rule starts, and how many it keeps: the most whose epochs the budget holds."""
    number = 0
    while (more := number + 1) + max(1, round(keep * more)) * (epochs - 1) <= budget:
        number = more
    return number, max(1, round(keep * number)) if number else 0


def random_curves(plan: Plan, seed: int, landscape: Landscape) -> Callable[[int], Curve]:
    """The trials of random search with this seed, by number: the same that `simulate` starts.

    Args: plan is one without first trials whose searcher is `random`.
    """
    search = _algorithm(plan, seed, ENDLESS, ENDLESS)
    known: list[Curve] = []

    def curve(number: int) -> Curve:
        while len(known) <= number:
            trial = search.next_trial()
            assert trial is not None
            known.append(landscape.curve(values_of(trial, plan.space), luck_of(seed, len(known))))
        return known[number]

    return curve


def values_of(trial: Trial, space: SearchSpace) -> dict[str, Scalar]:
    """What was drawn for it."""
    return {key: plain_value(trial.config[key]) for key in space.varied}


def luck_of(seed: int, number: int) -> np.random.Generator:
    """A trial's, from seed and number alone: methods that draw the same values see the same curve."""
    return np.random.default_rng((seed, 3, number))


def _algorithm(plan: Plan, seed: int, at_once: int, limit: int) -> SearchAlgorithm:
    built = build_searcher(dataclasses.replace(plan.sweep, seed=seed), plan.first.points, at_once)
    search = SearchGenerator(built) if isinstance(built, Searcher) else built
    domains = plan.space.to_tune()
    search.set_search_properties(OBJECTIVE, "max", domains)
    search.add_configurations([Experiment("simulated", _untrained, config=domains, num_samples=limit)])
    return search


def _untrained(values: dict[str, Any]) -> None:
    """What Tune would run."""


def _epoch_time(rng: np.random.Generator) -> float:
    return float(rng.uniform(0.95, 1.05))


class _Record:
    def __init__(self, budget: int) -> None:
        self._hmean, self._expected, self._budget = [np.nan], [np.nan], budget

    @property
    def spent(self) -> int:
        return len(self._hmean) - 1

    def epoch(self, curve: Curve, epoch: int) -> None:
        """A trial has reported: of equals the earlier one stays."""
        reached, before = curve.best[epoch - 1], self._hmean[-1]
        better = not before >= reached  # also where there is none before
        self._hmean.append(reached if better else before)
        self._expected.append(curve.expected if better else self._expected[-1])

    def course(self, trials: int) -> Course:
        hmean, expected = (np.array(self._lengthened(steps)) for steps in (self._hmean, self._expected))
        return Course(hmean, expected, self.spent, trials)

    def _lengthened(self, steps: list[float]) -> list[float]:
        return [*steps, *[steps[-1]] * (self._budget + 1 - len(steps))]
