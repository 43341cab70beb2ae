"""What proposes trials: settings to Ray Tune's searchers."""

from typing import assert_never

import optuna
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch

from ocr_ray.settings import SweepConfig
from ocr_ray.spaces import Scalar


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
