"""What a simulated trial reports: learning curves at any values, fitted to recorded trials, or made up.

A searcher that learns asks for values that nobody has trained. So the recorded curves are fitted by a Gaussian process
over the place of the values in their ranges, one for each epoch with a kernel in common, and what the fit leaves of the
recorded trials is put back whole, from one of the nearest: at the recorded values the simulated curves are then spread
as the recorded ones are.
"""

import itertools
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from threadpoolctl import threadpool_limits

from ocr_ray.distributions import LogUniform, Scalar
from ocr_ray.spaces import SearchSpace

NEAREST = 8
"""So many recorded trials lend what the fit leaves of them."""
Array = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Curve:
    """A trial."""

    hmean: tuple[float, ...]
    """By epoch, as evaluated."""
    expected: float
    """What a fresh seed of it ends at, on average: its hmean without the luck."""

    @cached_property
    def best(self) -> tuple[float, ...]:
        """The best so far, by epoch, as trials are judged by."""
        return tuple(itertools.accumulate(self.hmean, max))


class Landscape(Protocol):
    """Where sweeps are simulated."""

    def curve(self, values: Mapping[str, Scalar], rng: Rng) -> Curve:
        """A trial of these values; all its luck is drawn from `rng`."""
        ...


def place(space: SearchSpace, values: Mapping[str, Any]) -> Array:
    """Where the values lie in their ranges, `(D,)`, 0 to 1, by the logarithm."""
    found = []
    for key, distribution in space.distributions:
        assert isinstance(distribution, LogUniform), f"{key}: only ranges by the logarithm are simulated"
        low, high = math.log(distribution.low), math.log(distribution.high)
        found.append((math.log(float(values[key])) - low) / (high - low))
    return np.array(found)


@dataclass(frozen=True)
class Recorded:
    """Trials of a file that `benchmarks.record_curves` has written."""

    space: SearchSpace
    own: dict[str, Scalar]
    """The config's own values."""
    places: Array
    """`(N, D)`."""
    hmeans: Array
    """`(N, E)`. An epoch that a failed trial did not come to counts as 0."""
    seeds: Array
    """`(S, E)`: trials of the config's own values."""

    @property
    def epochs(self) -> int:
        """Of a whole trial."""
        return int(self.hmeans.shape[1])

    @cached_property
    def fit(self) -> GaussianProcessRegressor:
        """All epochs by one kernel, a length for each key and noise among its numbers."""
        kernel = ConstantKernel(1.0, (0.1, 100)) * RBF(np.full(self.places.shape[1], 0.5), (0.1, 20)) + WhiteKernel(0.1)
        fit = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=2, random_state=0)
        with threadpool_limits(1), warnings.catch_warnings():  # matrices so small are slower on several
            warnings.simplefilter("ignore", ConvergenceWarning)  # a key that does not matter has no length
            return fit.fit(self.places, self.hmeans)

    @cached_property
    def left(self) -> Array:
        """What the fit leaves of each recorded trial, `(N, E)`."""
        return self.hmeans - self.fit.predict(self.places)

    def curve(self, values: Mapping[str, Scalar], rng: Rng) -> Curve:
        """As of `Landscape`."""
        at = place(self.space, values)
        mean = np.clip(self.fit.predict(at[None])[0], 0, 1)
        near = np.argsort(((self.places - at) ** 2).sum(axis=1))[:NEAREST]
        hmean = np.clip(mean + self.left[rng.choice(near)], 0, 1)
        return Curve(tuple(hmean.tolist()), float(mean.max()))

    def quality(self) -> str:
        """In a sentence, how well the fit tells a trial that it has not seen."""
        kernel = self.fit.kernel_(self.places)
        inverse = np.linalg.inv(kernel)
        scale = self.hmeans.std(axis=0)
        normal = (self.hmeans - self.hmeans.mean(axis=0)) / np.where(scale > 0, scale, 1)
        errors = (inverse @ normal / np.diag(inverse)[:, None])[:, -1]  # of each left out, without fitting again
        final = self.hmeans[:, -1]
        tau = kendalltau(normal[:, -1] - errors, normal[:, -1]).statistic
        return (
            f"{len(final)} recorded trials end at {final.min():.3f} to {final.max():.3f}; the fit tells "
            f"each from the others with R2 {1 - errors.var():.2f}, tau {tau:.2f}; it leaves a standard deviation of "
            f"{self.left[:, -1].std():.3f}, and {len(self.seeds)} seeds of the config's own values have one of "
            f"{self.seeds[:, -1].std(ddof=1):.3f} around {self.seeds[:, -1].mean():.3f}"
        )


def read_recorded(path: Path) -> Recorded:
    """What `benchmarks.record_curves` has written."""
    plain = json.loads(path.read_text())
    space = SearchSpace(
        path.name, tuple((key, LogUniform(*given["loguniform"])) for key, given in plain["space"].items())
    )
    trials = plain["trials"]
    return Recorded(
        space,
        plain["own"],
        np.array([place(space, trial["values"]) for trial in trials]),
        _padded([trial["hmean"] for trial in trials], plain["epochs"]),
        _padded(plain["seeds"], plain["epochs"]),
    )


def _padded(curves: Sequence[Sequence[float]], epochs: int) -> Array:
    return np.array([[*curve, *[0.0] * (epochs - len(curve))] for curve in curves])


@dataclass(frozen=True)
class Synthetic:
    """Curves that rise to an end which falls with the distance from a best place, drawn anew with each seed.

    The first key also sets how fast they rise, as a learning rate does.
    """

    space: SearchSpace
    epochs: int
    seed: int
    crossing: float
    """How much faster the upper end of the first key rises than its middle, as a power of e. With 0 the curves keep
    their order but for noise; with 2 the fast ones are ahead early, whatever they end at."""
    spread: float = 0.03
    """Standard deviation between seeds of the same values, at the end."""

    @cached_property
    def _best(self) -> tuple[Array, Array]:
        """Best place, and by key how far off it costs as much as a third of all there is."""
        rng = np.random.default_rng((self.seed, 1))
        number = len(self.space.distributions)
        best = np.clip(0.5 + rng.normal(0, 0.2, number), 0, 1)  # the config's own values, in the middle, are not bad
        return best, np.sort(rng.uniform(0.2, 1.5, number))  # the first key matters most

    def curve(self, values: Mapping[str, Scalar], rng: Rng) -> Curve:
        """As of `Landscape`."""
        at = place(self.space, values)
        best, reach = self._best
        end = 0.75 * math.exp(-0.4 * float((((at - best) / reach) ** 2).sum()))
        speed = 0.35 * math.exp(self.crossing * (at[0] - 0.5) * 2)
        passed = np.arange(1, self.epochs + 1)
        rise = (1 - np.exp(-speed * passed)) / (1 - math.exp(-speed * self.epochs))
        luck = self.spread * (rng.normal() + 0.5 * rng.normal(size=self.epochs)) / math.sqrt(1.25)
        hmean = np.clip(end * rise + luck * min(1.0, 2 * end), 0, 1)
        return Curve(tuple(hmean.tolist()), end)


def agreement(landscape: Landscape, space: SearchSpace, rng: Rng, draws: int = 400) -> tuple[float, ...]:
    """Kendall's tau of each epoch with the last, over trials drawn at random."""
    curves = []
    for _ in range(draws):
        values: dict[str, Scalar] = {}
        for key, d in space.distributions:
            assert isinstance(d, LogUniform)
            values[key] = math.exp(rng.uniform(math.log(d.low), math.log(d.high)))
        curves.append(landscape.curve(values, rng).best)
    table = np.array(curves)
    return tuple(float(kendalltau(table[:, epoch], table[:, -1]).statistic) for epoch in range(table.shape[1]))
