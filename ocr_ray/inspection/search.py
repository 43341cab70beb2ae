"""Post-processing searched after training: every setting of a grid on each probability map, while the map is at hand.

A picture goes through the net once. Its kernels are read off the map once for each `thresh` and dilation, grown once
for each `unclip_ratio` and held against the labels once; a `box_thresh` then only leaves some of them out. So no map is
kept, in memory or on disk, none is rounded, and the grid is searched whole.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ocr_ray.data.labels import Sample
from ocr_ray.engine.evaluate import ImageResult
from ocr_ray.evidence import Comparison, compare, hmean_of
from ocr_ray.metrics import overlaps
from ocr_ray.postprocess import PostprocessConfig, kernels_of, texts_of

Key = Literal["thresh", "box_thresh", "unclip_ratio", "use_dilation"]
KEYS: tuple[Key, ...] = ("thresh", "box_thresh", "unclip_ratio", "use_dilation")
SEED = 0
"""Of the halves, so that two files of weights are searched and judged on the same pictures."""


@dataclass(frozen=True)
class Grid:
    """The values of each key; all combinations are tried."""

    thresh: tuple[float, ...] = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)
    box_thresh: tuple[float, ...] = (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)
    unclip_ratio: tuple[float, ...] = (1.2, 1.4, 1.5, 1.6, 1.8, 2.0, 2.3)
    use_dilation: tuple[bool, ...] = (False, True)

    def around(self, own: PostprocessConfig) -> "Grid":
        """The same grid with the values of `own` among its own."""
        return Grid(*(tuple(sorted({*getattr(self, key), getattr(own, key)})) for key in KEYS))

    def settings(self, own: PostprocessConfig) -> list[PostprocessConfig]:
        """All combinations, `box_thresh` changing fastest; keys that are not searched are those of `own`."""
        return [
            replace(own, thresh=thresh, use_dilation=dilation, unclip_ratio=unclip, box_thresh=box)
            for thresh, dilation, unclip, box in product(
                self.thresh, self.use_dilation, self.unclip_ratio, self.box_thresh
            )
        ]


@dataclass(frozen=True)
class Half:
    """One half of the pictures under the best settings and under the weights' own."""

    pictures: int
    best: float
    """Hmean."""
    own: float


@dataclass(frozen=True)
class Found:
    """What the search came to."""

    own: PostprocessConfig
    best: PostprocessConfig
    """The best on the half that was searched; of equals the one nearest to `own`."""
    grid: Grid
    searched: Half
    """Where `best` was picked: luck is in its gain."""
    held_back: Half
    """Which the search did not see."""
    gain: Comparison
    """On the half held back: `best` over `own`, picture by picture."""
    profiles: dict[Key, tuple[tuple[float, float, float], ...]]
    """For each key, along its values with the others as in `best`: value, hmean on the searched half, on the other."""
    seconds: float
    """That all settings took on all pictures; the net's time is not among them."""

    @property
    def tried(self) -> int:
        """How many settings."""
        return int(np.prod([len(getattr(self.grid, key)) for key in KEYS]))

    @property
    def is_better(self) -> bool:
        """Whether `best` is other than `own` and ahead on the half held back; `gain` says if beyond noise."""
        return self.best != self.own and self.held_back.best > self.held_back.own

    def changed(self) -> dict[Key, float | bool]:
        """The keys in which `best` differs from `own`."""
        return {key: getattr(self.best, key) for key in KEYS if getattr(self.best, key) != getattr(self.own, key)}

    def at_an_end(self) -> list[Key]:
        """Keys whose best value is the grid's first or last, beyond which a better one may lie."""
        ends = {key: (getattr(self.grid, key)[0], getattr(self.grid, key)[-1]) for key in KEYS if key != "use_dilation"}
        return [key for key, both in ends.items() if getattr(self.best, key) in both and key in self.changed()]


class SettingsSearch:
    """Fed one picture at a time by `see`, then asked by `found`.

    Of each picture of the half held back it keeps three numbers a setting, of the other half their sums.
    """

    def __init__(self, samples: Sequence[Sample], own: PostprocessConfig, grid: Grid | None = None) -> None:
        self._own, self._grid = own, (grid or Grid()).around(own)
        self._settings = self._grid.settings(own)
        order = np.random.default_rng(SEED).permutation(len(samples))
        self._to_search = {id(samples[i]) for i in order[: (len(samples) + 1) // 2].tolist()}
        self._sums = np.zeros((len(self._settings), 3), np.int64)
        self._searched = 0
        self._held_back: list[NDArray[np.int32]] = []
        self._seconds = 0.0

    def see(self, result: ImageResult) -> None:
        """Tries all settings on one picture."""
        began = time.monotonic()
        counts = counts_of(result, self._own, self._grid)
        if id(result.sample) in self._to_search:
            self._sums += counts
            self._searched += 1
        else:
            self._held_back.append(counts.astype(np.int32))
        self._seconds += time.monotonic() - began

    def found(self) -> Found | None:
        """None where a half has no picture that could be read, or no region at all to find."""
        if not self._searched or not self._held_back or not self._sums[0, 1]:
            return None
        own = self._settings.index(self._own)
        held_back = np.stack(self._held_back).astype(np.int64)  # (N, S, 3)
        hmeans = hmean_of(self._sums[:, None])
        others = hmean_of(np.moveaxis(held_back, 0, 1))
        nearest = sorted(range(len(hmeans)), key=self._distance)
        best = max(nearest, key=lambda i: float(hmeans[i]))  # the first of equals
        gain = compare(held_back[None, :, best], held_back[None, :, own])
        return Found(
            self._own,
            self._settings[best],
            self._grid,
            Half(self._searched, float(hmeans[best]), float(hmeans[own])),
            Half(len(held_back), float(others[best]), float(others[own])),
            gain,
            {key: tuple(self._profile(key, best, hmeans, others)) for key in KEYS},
            self._seconds,
        )

    def _distance(self, index: int) -> float:
        """From the weights' own settings, in steps of the grid."""
        steps = 0.0
        for key in KEYS:
            values = getattr(self._grid, key)
            there, here = getattr(self._settings[index], key), getattr(self._own, key)
            steps += abs(values.index(there) - values.index(here))
        return steps

    def _profile(
        self, key: Key, best: int, hmeans: NDArray[np.float64], others: NDArray[np.float64]
    ) -> Iterator[tuple[float, float, float]]:
        for value in getattr(self._grid, key):
            i = self._settings.index(replace(self._settings[best], **{key: value}))
            yield float(value), float(hmeans[i]), float(others[i])


def counts_of(result: ImageResult, own: PostprocessConfig, grid: Grid) -> NDArray[np.int64]:
    """Matched, labelled and detected of one picture under each of `grid.settings(own)`, `(S, 3)`, as `evaluate` counts
    them."""
    sample, rows = result.sample, []
    lowest = min(grid.box_thresh)
    for thresh, dilation in product(grid.thresh, grid.use_dilation):
        read = replace(own, thresh=thresh, use_dilation=dilation)
        kernels = [k for k in kernels_of(result.probability, read) if not k[1] < lowest]
        for unclip_ratio in grid.unclip_ratio:
            grown = replace(read, unclip_ratio=unclip_ratio)
            texts = texts_of(kernels, result.probability.shape, grown, result.width, result.height)
            over = overlaps(sample.polygons, sample.ignore, [text.polygon for text in texts])
            scores = np.array([text.score for text in texts])[over.detections]
            for box_thresh in grid.box_thresh:
                counts = over.counts(~(scores < box_thresh))
                rows.append((counts.matched, counts.ground_truth, counts.detected))
    return np.array(rows, np.int64)
