"""Which knobs decided hmean, by Optuna's evaluators, with their spread and what chance alone would give.

An importance is a share: a knob's part in the differences of hmean, the shares of all knobs adding up to 1. So some
knob always looks important, also in noise. Two things keep a reader from believing that: each share is computed over
trials drawn again with replacement (bootstrap), which shows how far it depends on single trials; and over trials whose
hmeans were dealt out anew, which shows what the same evaluator says of knobs that do nothing.

PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255) asks which knobs set the better trials apart from all; fANOVA (Hutter
et al. 2014) which explain the spread of hmean over the whole space, by a random forest.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import BaseImportanceEvaluator, FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

from ocr_ray.report.contents import Knob, Sweep, Trial

LEAST_TRIALS = 10
"""With fewer, the evaluators' shares say nothing that a look at the table would not."""
Evaluator = Literal["PED-ANOVA", "fANOVA"]
RESAMPLES: dict[Evaluator, int] = {"PED-ANOVA": 60, "fANOVA": 16}
"""Fewer of the forests, each of which takes a hundred times as long."""
TREES = 24
BETTER = 0.25
"""The share of trials that PED-ANOVA calls the better ones. Its own tenth would be two or three of a small sweep."""
CHANCE = 0.95
"""A share counts as more than chance from this quantile of the shuffled ones on."""


@dataclass(frozen=True)
class Share:
    """One knob by one evaluator."""

    key: str
    evaluator: Evaluator
    value: float
    """Over the trials as they are."""
    low: float
    high: float
    """The 5% and 95% quantiles over trials drawn with replacement."""
    chance: float
    """The 95% quantile over shuffled hmeans."""

    @property
    def is_told(self) -> bool:
        """Whether the share stands out of what chance gives, also where single trials are left out."""
        return self.value > self.chance and self.low > 0


@dataclass(frozen=True)
class Importance:
    """Of all knobs of a sweep; `shares` is empty where it cannot be told, and `why` says why."""

    shares: tuple[Share, ...] = ()
    trials: int = 0
    why: str = ""

    @property
    def told(self) -> dict[str, tuple[Evaluator, ...]]:
        """Keys that stand out, the most important first, with the evaluators that say so."""
        by: dict[str, tuple[Evaluator, ...]] = {}
        for share in self.shares:
            if share.is_told:
                by[share.key] = (*by.get(share.key, ()), share.evaluator)
        return by


def importance(sweep: Sweep, seed: int = 0) -> Importance:
    """Shares of the sweep's knobs in its hmeans; the most important by PED-ANOVA first.

    Trials that were ended early count with the hmean that they had reached.
    """
    trials = sweep.compared
    knobs = [k for k in sweep.knobs if len({t.values.get(k.key) for t in trials}) > 1]
    if len(trials) < LEAST_TRIALS:
        count = f"{len(trials)} trials with an hmean are" if len(trials) != 1 else "1 trial with an hmean is"
        return Importance(trials=len(trials), why=f"{count} too few to tell: it takes {LEAST_TRIALS}")
    if len(knobs) < 2:
        return Importance(trials=len(trials), why="a single knob takes all of it")
    hmeans = np.array([t.hmean for t in trials], np.float64)
    if np.ptp(hmeans) == 0:
        return Importance(trials=len(trials), why="all trials reached the same hmean")
    shares: list[Share] = []
    evaluators: tuple[tuple[Evaluator, Callable[[], BaseImportanceEvaluator]], ...] = (
        ("PED-ANOVA", lambda: PedAnovaImportanceEvaluator(target_quantile=BETTER)),
        ("fANOVA", lambda: FanovaImportanceEvaluator(n_trees=TREES, seed=seed)),
    )
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it otherwise announces each study
    try:
        for name, build in evaluators:
            shares += _by(name, build, trials, knobs, hmeans, np.random.default_rng(seed))
    finally:
        optuna.logging.set_verbosity(before)
    if not shares:
        return Importance(trials=len(trials), why="the evaluators found no difference that they could share out")
    rank = {share.key: share.value for share in reversed(shares)}  # by the first evaluator
    return Importance(tuple(sorted(shares, key=lambda s: -rank[s.key])), len(trials))


def _by(
    name: Evaluator,
    build: Callable[[], BaseImportanceEvaluator],
    trials: Sequence[Trial],
    knobs: Sequence[Knob],
    hmeans: NDArray[np.float64],
    rng: np.random.Generator,
) -> list[Share]:
    whole = _shares(build, trials, knobs, hmeans)
    if whole is None:
        return []
    drawn, shuffled = [], []
    for _ in range(RESAMPLES[name]):
        again = rng.integers(len(trials), size=len(trials))
        drawn.append(_shares(build, [trials[i] for i in again], knobs, hmeans[again]))
        shuffled.append(_shares(build, trials, knobs, rng.permutation(hmeans)))
    return [
        Share(
            knob.key,
            name,
            float(whole[i]),
            *_quantiles(drawn, i, (0.05, 0.95)),
            *_quantiles(shuffled, i, (CHANCE,)),
        )
        for i, knob in enumerate(knobs)
    ]


def _quantiles(
    resampled: Sequence[NDArray[np.float64] | None], knob: int, levels: tuple[float, ...]
) -> tuple[float, ...]:
    values = [shares[knob] for shares in resampled if shares is not None]
    return tuple(float(q) for q in np.quantile(values, levels)) if values else tuple(np.nan for _ in levels)


def _shares(
    build: Callable[[], BaseImportanceEvaluator],
    trials: Sequence[Trial],
    knobs: Sequence[Knob],
    hmeans: NDArray[np.float64],
) -> NDArray[np.float64] | None:
    """In the order of the knobs; None where these trials have nothing to share out."""
    distributions = {knob.key: _distribution(knob) for knob in knobs}
    study = optuna.create_study(direction="maximize")
    for trial, hmean in zip(trials, hmeans, strict=True):
        params = {k.key: _param(k, trial) for k in knobs if trial.values.get(k.key) is not None}
        study.add_trial(
            optuna.trial.create_trial(
                params=params, distributions={key: distributions[key] for key in params}, value=float(hmean)
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental, and few trials: the page says the latter itself
        try:
            found = optuna.importance.get_param_importances(study, evaluator=build(), normalize=True)
        except (ValueError, RuntimeError, ZeroDivisionError):
            return None
    shares = np.array([found.get(knob.key, 0.0) for knob in knobs])
    return shares if np.isfinite(shares).all() and shares.any() else None


def _param(knob: Knob, trial: Trial) -> object:
    value = trial.values[knob.key]
    return str(value) if knob.is_choice else value


def _distribution(knob: Knob) -> BaseDistribution:
    scale = knob.scale
    match scale.kind:
        case "choice":
            return CategoricalDistribution([str(choice) for choice in scale.choices])
        case "whole":
            return IntDistribution(int(scale.low), int(scale.high))
        case "steps" | "linear":  # the control need not lie on a step
            return FloatDistribution(scale.low, scale.high)
        case "log":
            return FloatDistribution(scale.low, scale.high, log=True)
        case _:
            assert_never(scale.kind)
