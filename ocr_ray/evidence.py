"""Whether one way of training is better than another beyond the noise of pictures and of seeds.

Counts are arrays `(S, N, 3)`: for each of S runs that differ in their seed alone, and each of N pictures, how many
regions were matched, labelled and detected. Two sides are compared in pairs: run s of both has the same seed, and so
the same batches; picture n is the same.

Two sources of noise limit what such runs show. Other pictures of the same kind would have given another difference:
resampling the N pictures imitates that. So would other seeds, but two or three runs are too few to be resampled. The
variance over their differences has two parts: what is peculiar to a picture in a run, which the resampled pictures tell
and already account for, and what a seed does to all pictures. Only the second part is added. Since S runs tell the
variance badly, it is drawn anew for each resample from what they leave open, as normal values would (a generalised
pivot: s^2 (S - 1) / chi^2 with S - 1 degrees of freedom, less the first part, at least 0). Where pictures make no noise
this is Student's interval; where seeds make none it is the percentile bootstrap's and wider, the more so the fewer they
are. `tests/unit/test_evidence.py` measures how often it holds the truth.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Counts = NDArray[np.int64]
LEVEL = 0.95
RESAMPLES = 4000
DRAWS = 4
"""Of the seeds' part for each resample."""
A_TIME = 1_000_000
"""Numbers drawn at a time, so that many pictures do not fill the memory."""


@dataclass(frozen=True)
class Comparison:
    """Mean hmean of one side less that of the other, over `seeds` pairs of runs."""

    difference: float
    low: float
    high: float
    """Ends of the 95% interval."""
    p: float
    """Wilcoxon's signed-rank test, two-sided: are the differences of the pictures' own F-measures, each a mean over
    the seeds, as often and as far above 0 as below? It knows of pictures alone: these runs with others of them."""
    seeds: int
    pictures: int

    @property
    def is_gain(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low > 0

    def text(self) -> str:
        """Difference and interval, e.g. `+.0123 (+.0040 to +.0206)`."""
        return f"{_signed(self.difference)} ({_signed(self.low)} to {_signed(self.high)})"


def hmean_of(counts: Counts) -> NDArray[np.float64]:
    """Hmean of the sums over all pictures: `(..., N, 3)` to `(...)`, as `metrics.Score` has it."""
    return _hmean(counts.sum(axis=-2))


def spread_of(hmeans: NDArray[np.float64]) -> float:
    """Sample standard deviation over seeds; not a number for a single one."""
    return float(np.std(hmeans, ddof=1)) if len(hmeans) > 1 else math.nan


def f_measures(counts: Counts) -> NDArray[np.float64]:
    """Each picture's own: `(..., N, 3)` to `(..., N)`. 1 where there is nothing to find and nothing was found."""
    matched, labelled, detected = np.moveaxis(counts, -1, 0)
    total = labelled + detected
    return np.where(total == 0, 1.0, 2 * matched / np.maximum(total, 1))


def mean_interval(counts: Counts) -> tuple[float, float, float]:
    """Mean hmean over seeds and the ends of its interval, for counts `(S, N, 3)`."""
    found = compare(counts, np.zeros_like(counts))  # which has hmean 0
    return found.difference, max(0.0, found.low), found.high


def compare(side: Counts, control: Counts, seed: int = 0) -> Comparison:
    """Compares two ways of training over the same pictures.

    Args: side is `(S, N, 3)`; control is as many runs of the same seeds, or `(1, N, 3)` for what knows no seed, such
        as weights that nobody trained; seed is that of the resampling.
    Raises: ValueError for counts that cannot be paired.
    """
    runs, pictures = side.shape[0], side.shape[1]
    if control.shape[0] not in (1, runs) or control.shape[1:] != side.shape[1:] or not pictures:
        raise ValueError(f"compare: counts {side.shape} cannot be paired with {control.shape}")
    by_seed = hmean_of(side) - hmean_of(control)
    rng = np.random.default_rng(seed)
    resampled = _resampled_differences(side, control, rng)
    means = resampled.mean(axis=1, keepdims=True)
    if runs > 1:
        peculiar = (resampled - by_seed).var(axis=1, ddof=1).mean()
        # The quantiles in random order: plain draws of so heavy a tail would move the ends more.
        total = by_seed.var(ddof=1) * (runs - 1) / stats.chi2.ppf(_levels(rng), runs - 1)
        of_seeds = np.maximum(0, total - peculiar) / runs
        means = means + np.sqrt(of_seeds) * stats.norm.ppf(_levels(rng))
    # Two seeds may leave more open than there is.
    low, high = np.quantile(np.clip(means, -1, 1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    per_picture = f_measures(side).mean(axis=0) - f_measures(control).mean(axis=0)
    return Comparison(float(by_seed.mean()), float(low), float(high), signed_rank(per_picture), runs, pictures)


def signed_rank(differences: NDArray[np.float64]) -> float:
    """P of Wilcoxon's signed-rank test, two-sided; 1 where all differences are 0.

    Zeros keep their ranks and count for neither side (Pratt 1959), for many pictures come out alike.
    """
    differences = np.round(differences, 12)  # means of equal fractions differ in their last bits
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="pratt").pvalue)


def _levels(rng: np.random.Generator) -> NDArray[np.float64]:
    """Evenly spaced in (0, 1) and shuffled, `(RESAMPLES, DRAWS)`."""
    count = RESAMPLES * DRAWS
    return ((rng.permutation(count) + 0.5) / count).reshape(RESAMPLES, DRAWS)


def _resampled_differences(side: Counts, control: Counts, rng: np.random.Generator) -> NDArray[np.float64]:
    """Of the hmeans of each pair of runs, for as many pictures drawn with replacement, the same ones on both sides:
    `(RESAMPLES, S)`."""
    pictures = side.shape[1]
    flat = [np.ascontiguousarray(np.moveaxis(counts, 1, 0)).reshape(pictures, -1) for counts in (side, control)]
    both = np.concatenate(flat, axis=1).astype(np.float64)
    width = flat[0].shape[1]
    found = np.empty((RESAMPLES, len(side)))
    each = max(1, A_TIME // pictures)
    for start in range(0, RESAMPLES, each):
        some = min(each, RESAMPLES - start)
        drawn = rng.integers(pictures, size=(some, pictures)) + pictures * np.arange(some)[:, None]
        times = np.bincount(drawn.ravel(), minlength=some * pictures).reshape(some, pictures)
        sums = times @ both
        ours, theirs = (_hmean(part.reshape(some, -1, 3)) for part in (sums[:, :width], sums[:, width:]))
        found[start : start + some] = ours - theirs
    return found


def _hmean(sums: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """2PR / (P + R) with P = matched / detected and R = matched / labelled; 0 where nothing matched."""
    matched, labelled, detected = np.moveaxis(sums, -1, 0)
    return 2 * matched / np.maximum(labelled + detected, 1)


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("0.", ".", 1)
