"""What proposes trials and what ends them early: settings to Ray Tune's searchers and schedulers."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import assert_never

import optuna
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch

from ocr_ray.files import whole_file
from ocr_ray.settings import SweepConfig
from ocr_ray.spaces import Scalar

RUNGS_FILE = "rungs.pkl"
NEVER = math.inf
"""Epochs after which the median rule may pause a trial that has no others to compare with: its processes would end."""

first_come: Callable[[], TrialScheduler] = FIFOScheduler


def build_searcher(
    cfg: SweepConfig, first: dict[str, Scalar] | None, max_concurrent: int
) -> Searcher | SearchAlgorithm:
    """Proposes values of the space, for the metric, that `tune.run` gets.

    `first` are the values of the first trial; absent, they are drawn as well.

    With one trial at a time the same seed and results give the same proposals. `tpe` with more draws the next trial
    before it knows those that run.
    """
    points = [first] if first and cfg.default_first else None
    match cfg.searcher:
        case "tpe":
            optuna.logging.set_verbosity(optuna.logging.WARNING)  # it otherwise announces its study
            # Half of a small sweep would otherwise be drawn before anything is learned from the other half.
            sampler = optuna.samplers.TPESampler(seed=cfg.seed, n_startup_trials=max(3, min(10, cfg.trials // 3)))
            search = OptunaSearch(sampler=sampler, points_to_evaluate=points)
            return ConcurrencyLimiter(search, max_concurrent=max_concurrent)
        case "random":
            return BasicVariantGenerator(
                points_to_evaluate=points, max_concurrent=max_concurrent, random_state=cfg.seed
            )
        case _:
            assert_never(cfg.searcher)


def ends_early(cfg: SweepConfig, epochs: int) -> bool:
    """Whether the scheduler can end a trial of so many epochs before its last one."""
    return cfg.scheduler != "none" and cfg.grace_epochs < epochs


def build_scheduler(cfg: SweepConfig, epochs: int) -> TrialScheduler:
    """Compares trials at the same `epoch`, never by Tune's own count, which starts again when a trial is resumed.

    Args: epochs is the length of a whole trial; no rung lies on its last epoch, so that the trial ends by itself.
    """
    if not ends_early(cfg, epochs):
        return first_come()
    match cfg.scheduler:
        case "asha":
            return AsyncHyperBandScheduler(
                time_attr="epoch",
                grace_period=cfg.grace_epochs,
                reduction_factor=cfg.reduction_factor,
                max_t=epochs - 1,
                stop_last_trials=False,
            )
        case "median":
            return MedianStoppingRule(
                time_attr="epoch",
                grace_period=cfg.grace_epochs,
                min_samples_required=2,
                min_time_slice=NEVER,  # type: ignore[arg-type]  # says int, compares
            )
        case "none":
            return first_come()
        case _:
            assert_never(cfg.scheduler)


def save_scheduler(scheduler: TrialScheduler, path: Path) -> None:
    """Writes the rungs of ASHA, which Tune itself does not keep; the others have nothing to keep, or cannot."""
    if isinstance(scheduler, AsyncHyperBandScheduler):
        with whole_file(path) as aside:
            scheduler.save(str(aside))


def restore_scheduler(scheduler: TrialScheduler, path: Path) -> None:
    """Reads what `save_scheduler` wrote, if anything."""
    if isinstance(scheduler, AsyncHyperBandScheduler) and path.exists():
        scheduler.restore(str(path))
        scheduler._metric = scheduler._mode = None  # `tune.run` gives them again, and refuses one that has them
