"""What a sweep tries before its searcher proposes anything: the config itself, its neighbours, or a whole grid."""

import itertools
import math
import random
from dataclasses import dataclass

from ocr_ray.config import RecipeConfig
from ocr_ray.distributions import Scalar, grid_values
from ocr_ray.errors import ConfigError
from ocr_ray.spaces import SearchSpace

MOST_NEIGHBOURS = 4
"""Unless more are asked for: two keys, to either side."""
LARGEST_GRID = 100_000

Point = dict[str, Scalar]


@dataclass(frozen=True)
class FirstTrials:
    """Values of the varied keys of a sweep's first trials, in their order."""

    points: tuple[Point, ...]
    control: Point | None
    """Of the trial that takes the config's own values, the first of all; None where there is none."""
    trials: int
    """Of the whole sweep: fewer than `sweep.trials` where a grid has fewer points."""
    notes: tuple[str, ...] = ()
    """For a person, one line each."""


def first_trials(cfg: RecipeConfig, space: SearchSpace) -> FirstTrials:
    """What `sweep` of `cfg` says about its first trials.

    Raises: ConfigError for a grid over reals without a number of points, or one of more points than can be listed.
    """
    notes: list[str] = []
    points: list[Point] = []
    own = space.own_values(cfg)
    control = own if cfg.sweep.default_first else None
    if cfg.sweep.default_first and own is None:
        notes.append("note: the config's own values lie outside the search space, so the first trial is drawn as well")
    if control is not None:
        points = [control, *space.neighbours(control)[: number_of_neighbours(cfg)]][: cfg.sweep.trials]
    trials = cfg.sweep.trials
    if cfg.sweep.searcher == "grid":
        before_it = [space.settled(point) for point in points]
        grid = [point for point in grid_points(space) if space.settled(point) not in before_it]
        random.Random(cfg.sweep.seed).shuffle(grid)  # so that a part of it is spread over the whole
        room = cfg.sweep.trials - len(points)
        before = f" after the {len(points)} that go first" if points else ""
        if len(grid) > room:
            notes.append(
                f"note: the grid has {len(grid)} points, and sweep.trials={trials} leaves room for {room} of "
                f"them{before}, drawn evenly; sweep.trials={len(grid) + len(points)} tries all"
            )
        points += grid[:room]
        trials = len(points)
        if trials < cfg.sweep.trials:
            notes.append(f"note: {trials} trials, not {cfg.sweep.trials}: the grid has {len(grid)} points{before}")
    return FirstTrials(tuple(points), control, trials, tuple(notes))


def number_of_neighbours(cfg: RecipeConfig) -> int:
    """As `sweep.neighbours` says; absent, a quarter of a sweep at most, and none where a grid is tried anyway."""
    if cfg.sweep.neighbours is not None:
        return cfg.sweep.neighbours
    return 0 if cfg.sweep.searcher == "grid" else min(MOST_NEIGHBOURS, cfg.sweep.trials // 4)


def grid_points(space: SearchSpace) -> list[Point]:
    """Every combination of the varied keys' values, the last key changing fastest; of those that are one trial, one.

    Raises: ConfigError naming the key whose reals have no `points`, or the number of combinations.
    """
    axes: dict[str, tuple[Scalar, ...]] = {}
    distributions = dict(space.distributions)
    for key in space.varied:
        values = grid_values(distributions[key])
        if values is None:
            raise ConfigError(
                f"{space.source}: {key}: sweep.searcher=grid needs the number of points of a range of reals, "
                f"e.g. {{loguniform: [0.1, 10], points: 5}}"
            )
        axes[key] = values
    size = math.prod(len(values) for values in axes.values())
    if size > LARGEST_GRID:
        raise ConfigError(
            f"{space.source}: sweep.searcher=grid: expected at most {LARGEST_GRID} points, found {size}: state fewer, "
            f"or take another searcher"
        )
    points: dict[tuple[tuple[str, Scalar], ...], Point] = {}
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        points.setdefault(tuple(space.settled(point).items()), point)
    return list(points.values())
