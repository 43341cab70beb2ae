"""What a search space draws, to be looked at before a sweep is paid for: `ocr-ray space show FILE`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import numpy as np
from rich.table import Table

from ocr_ray.config import RECIPES, RecipeConfig, load_config, override
from ocr_ray.distributions import (
    Choice,
    Distribution,
    Fixed,
    LogUniform,
    QUniform,
    RandInt,
    Uniform,
    describe,
    holds,
)
from ocr_ray.errors import ConfigError
from ocr_ray.spaces import SearchSpace, load_space
from ocr_ray.typed import flatten


@dataclass(frozen=True)
class ShownSpace:
    """A space with a config that it fits."""

    space: SearchSpace
    cfg: RecipeConfig
    fits: str
    """Which config that is, in words."""

    def keys(self) -> Table:
        """A row for each key: what it is drawn from, when, and the config's own value."""
        own = flatten(self.cfg)
        table = _table("key", "drawn from", "when", "own value")
        for key, distribution in self.space.distributions:
            when = " and ".join(c.one_line() for c in self.space.conditions if c.key == key)
            outside = "" if key not in self.space.varied or holds(distribution, own[key]) else " (outside)"
            table.add_row(key, describe(distribution), when, f"{_short(own[key])}{outside}")
        return table

    def draws(self, number: int, seed: int = 0) -> Table:
        """Trials as the searcher `random` would draw them. In brackets: the config's own value, where the condition of
        a key does not hold."""
        own = flatten(self.cfg)
        domains = self.space.to_tune()
        rng = np.random.default_rng(seed)
        table = _table("draw", *(key.replace(".", ".\n") for key in self.space.varied))
        for n in range(1, number + 1):
            drawn = {key: domains[key].sample(random_state=rng) for key in self.space.varied}
            counts = self.space.settled(drawn)
            cells = (_short(drawn[key]) if key in counts else f"({_short(own[key])})" for key in self.space.varied)
            table.add_row(str(n), *cells)
        return table


def read_to_show(path: Path, config: Path | None = None, overrides: Sequence[str] = ()) -> ShownSpace:
    """The space in `path`, read against `config`, or else against the recipe that it means: of those whose
    defaults it fits, the one whose defaults lie nearest to the middle of its ranges.

    Raises: ConfigError as `load_space`; where no recipe fits, what each of them says against it.
    """
    if config is not None:
        cfg = load_config(config, overrides)
        return ShownSpace(load_space(path, cfg), cfg, str(config))
    found: dict[str, tuple[SearchSpace, RecipeConfig]] = {}
    refusals: dict[str, str] = {}
    for recipe in RECIPES:
        name: str = recipe().recipe
        try:
            cfg = override(recipe(), overrides)
            found[name] = load_space(path, cfg), cfg
        except ConfigError as e:
            refusals[name] = str(e).removeprefix(f"{path}: ")
    if not found:
        if len(set(refusals.values())) == 1:
            raise ConfigError(f"{path}: {refusals.popitem()[1]}")
        told = "; ".join(f"{name}: {refusal}" for name, refusal in refusals.items())
        raise ConfigError(f"{path}: fits the defaults of no recipe (--config names a config): {told}")
    fit = min(found, key=lambda name: round(_apart(*found[name]), 9))  # the first of equals
    space, cfg = found[fit]
    others = [other for other in found if other != fit]
    fits = f"the defaults of the recipe {fit}" + (f" (it fits {' and '.join(others)} too)" if others else "")
    return ShownSpace(space, cfg, fits)


def _apart(space: SearchSpace, cfg: RecipeConfig) -> float:
    """How far the config's own values lie from the middle of their ranges, summed over keys: from 0, in the middle, to
    1, at an end or outside. Whoever writes a space sets out from the values of the recipe that it is for."""
    own, distributions = flatten(cfg), dict(space.distributions)
    return sum(_off(distributions[key], own[key]) for key in space.varied)


def _off(distribution: Distribution, value: Any) -> float:
    if not holds(distribution, value):
        return 1.0
    match distribution:
        case LogUniform():
            low, high, at = math.log(distribution.low), math.log(distribution.high), math.log(value)
        case Uniform() | QUniform() | RandInt():
            low, high, at = distribution.low, distribution.high, value
        case Choice() | Fixed():
            return 0.0
        case _:
            assert_never(distribution)
    return abs(2 * (at - low) / (high - low) - 1)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
