"""Which configs of a sweep are trained again, and with which seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ocr_ray.config import RecipeConfig
from ocr_ray.confirm.verdict import Kind
from ocr_ray.distributions import Scalar
from ocr_ray.search.trials import TrialSummary
from ocr_ray.spaces import SearchSpace
from ocr_ray.typed import flatten

SEED = "run.seed"


@dataclass(frozen=True)
class Candidate:
    """A config that is trained again: a trial's values, or the config's own."""

    kind: Kind
    key: str
    """Stem of its folders' names."""
    name: str
    values: dict[str, Scalar]


def candidates_of(trials: Sequence[TrialSummary], own: Mapping[str, Scalar], count: int) -> list[Candidate]:
    """The `count` best trials by hmean, without those that had the config's own values, or the values of a better one;
    fewer where there are no more that have weights to show."""
    shown = [t for t in trials if t.hmean is not None and t.best]
    chosen: list[Candidate] = []
    for trial in sorted(shown, key=lambda t: (-(t.hmean or 0.0), t.number)):
        values = without_seed(trial.values)
        if values != without_seed(own) and values not in [c.values for c in chosen]:
            chosen.append(Candidate("candidate", f"trial-{trial.number}", f"trial {trial.number}", values))
    return chosen[:count]


def default_trial(trials: Sequence[TrialSummary], space: SearchSpace, cfg: RecipeConfig) -> TrialSummary | None:
    """The trial that had the config's own values all along and has weights to show, if there is one."""
    own = own_values(space, cfg)
    return next((t for t in trials if t.best and not t.took_over and without_seed(t.values) == without_seed(own)), None)


def own_values(space: SearchSpace, cfg: RecipeConfig) -> dict[str, Scalar]:
    """The config's own values of the varied keys, also where they lie outside the space."""
    flat = flatten(cfg)
    return {key: flat[key] for key in space.varied}


def fresh_seeds(cfg: RecipeConfig, trials: Sequence[TrialSummary]) -> list[int]:
    """`sweep.seeds` seeds that no trial had: the first ones above."""
    searched = [seed for t in trials if isinstance(seed := t.values.get(SEED), int)]
    first = max([cfg.run.seed, *searched]) + 1
    return list(range(first, first + cfg.sweep.seeds))


def without_seed(values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """All values but that of the seed."""
    return {key: value for key, value in values.items() if key != SEED}
