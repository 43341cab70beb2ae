"""What proposes trials: settings to Ray Tune's searchers.

| searcher | for | cannot |
|---|---|---|
| `tpe` | the default: any space, any number of trials; Optuna's own settings (multivariate, constant liar) | |
| `gp` | few, dear trials over a handful of numbers; each proposal takes seconds | |
| `cmaes` | many trials over numbers that act together | learn from choices, which stay random |
| `random` | a baseline, and many trials at a time | learn |
| `grid` | two or three keys, to be looked at as a table | learn |

All begin with the trials of `search/first.py`.

Two are left out. BOHB goes with a HyperBand of its own in Ray, and left two of four trials paused for good (Ray 2.60).
PriorBand (NePS 0.17) runs beside our packages, but brings thirty more and pandas back to 2; it asks for a config
together with its epochs and to have others taken up again, which needs trials that pause, as HyperBand does
(`search/schedulers.py`). On the curves of `benchmarks/search.py`, its prior at the config's own values and one trial
at a time, it found as much as `tpe` (docs/search.md).
"""

from collections.abc import Sequence
from typing import assert_never

import optuna
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch

from ocr_ray.distributions import Choice, Scalar
from ocr_ray.search.student import LATENCY, PARAMETERS
from ocr_ray.search.trial import OBJECTIVE
from ocr_ray.settings import SweepConfig
from ocr_ray.spaces import SearchSpace


def build_searcher(
    cfg: SweepConfig,
    first: Sequence[dict[str, Scalar]],
    max_concurrent: int,
    earlier: optuna.storages.BaseStorage | None = None,
) -> Searcher | SearchAlgorithm:
    """Proposes values of the space that `tune.run` gets, for its metric; with several objectives it has them itself.

    Args: first are the values of the first trials; for `grid`, of all. earlier holds trials of earlier sweeps
        (`warm.study_with`), from which a searcher that learns sets out.

    With one trial at a time the same seed and results give the same proposals. Those that learn, with more, draw the
    next trial before they know those that run.
    """
    sampler: optuna.samplers.BaseSampler
    match cfg.searcher:
        case "random" | "grid":
            return BasicVariantGenerator(
                points_to_evaluate=list(first), max_concurrent=max_concurrent, random_state=cfg.seed
            )
        case "tpe":
            sampler = optuna.samplers.TPESampler(seed=cfg.seed)
        case "gp":
            sampler = optuna.samplers.GPSampler(seed=cfg.seed)
        case "cmaes":
            sampler = optuna.samplers.CmaEsSampler(seed=cfg.seed, warn_independent_sampling=False)
        case _:
            assert_never(cfg.searcher)
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it otherwise announces its study
    metrics, modes = objectives(cfg)
    several = {"metric": metrics, "mode": modes} if len(metrics) > 1 else {}
    search = OptunaSearch(sampler=sampler, points_to_evaluate=list(first), storage=earlier, **several)  # type: ignore[arg-type]
    return ConcurrencyLimiter(search, max_concurrent=max_concurrent)


def objectives(cfg: SweepConfig) -> tuple[list[str], list[str]]:
    """Keys of a report that a sweep is about, and for each `max` or `min`."""
    match cfg.against:
        case None:
            return [OBJECTIVE], ["max"]
        case "parameters":
            return [OBJECTIVE, PARAMETERS], ["max", "min"]
        case "latency":
            return [OBJECTIVE, LATENCY], ["max", "min"]
        case _:
            assert_never(cfg.against)


def searcher_notes(cfg: SweepConfig, space: SearchSpace) -> list[str]:
    """What the searcher cannot do with this space, one line each."""
    if cfg.searcher != "cmaes":
        return []
    distributions = dict(space.distributions)
    choices = [key for key in space.varied if isinstance(distributions[key], Choice)]
    if len(space.varied) - len(choices) < 2:
        return ["note: cmaes needs two numbers or more to learn from; here every trial is drawn at random"]
    if choices:
        return [f"note: cmaes learns from numbers alone; drawn at random in every trial: {', '.join(choices)}"]
    return []
