"""What a searched key may take: distributions, how a file writes them, and what can be drawn from each."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np

from ocr_ray.errors import ConfigError

Scalar = bool | int | float | str | None


@dataclass(frozen=True)
class LogUniform:
    """Real, uniform in its logarithm, `low <= value < high`."""

    low: float
    high: float
    points: int | None = None
    """How many a grid takes, both ends among them; only the searcher `grid` reads it."""


@dataclass(frozen=True)
class Uniform:
    """Real, `low <= value < high`."""

    low: float
    high: float
    points: int | None = None
    """As of `LogUniform`."""


@dataclass(frozen=True)
class QUniform:
    """Real, a whole multiple of `q`, `low <= value <= high`."""

    low: float
    high: float
    q: float


@dataclass(frozen=True)
class RandInt:
    """Whole, `low <= value < high`: `high` itself is never drawn, as in Ray Tune."""

    low: int
    high: int


@dataclass(frozen=True)
class Choice:
    """One of these, each as likely."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Fixed:
    """The same in every trial."""

    value: Scalar


Distribution = LogUniform | Uniform | QUniform | RandInt | Choice | Fixed
KINDS = (
    "loguniform: [low, high]",
    "uniform: [low, high]",
    "quniform: [low, high, q]",
    "randint: [low, high]",
    "choice: [...]",
)


def distribution_from_plain(given: Any, where: str) -> Distribution:
    """From what a file holds for a key, e.g. `{"uniform": [1, 2]}`; anything else but a list is a fixed value.

    Raises: ConfigError that begins with `where` and says what was expected.
    """
    if isinstance(given, list):
        raise ConfigError(f"{where}: expected {{choice: {given}}} or one value, found a list")
    if not isinstance(given, dict):
        return Fixed(given)
    kinds = [key for key in given if key != "points"]
    if len(kinds) != 1:
        raise ConfigError(
            f"{where}: expected one distribution ({' | '.join(KINDS)}), found {', '.join(given) or 'none'}"
        )
    kind, values = kinds[0], given[kinds[0]]
    if not isinstance(values, list):
        raise ConfigError(f"{where}: {kind}: expected a list, found {values!r}")
    points = given.get("points")
    if points is not None:
        if kind not in ("loguniform", "uniform"):
            raise ConfigError(f"{where}: points: expected with loguniform or uniform only, found with {kind}")
        if not isinstance(points, int) or isinstance(points, bool) or points < 2:
            raise ConfigError(f"{where}: points: expected a whole number of at least 2, found {points!r}")
    match kind:
        case "loguniform":
            low, high = _numbers(values, 2, f"{where}: {kind}")
            if low <= 0:
                raise ConfigError(f"{where}: loguniform: expected a low end above 0, found {low:g}")
            return LogUniform(low, high, points)
        case "uniform":
            low, high = _numbers(values, 2, f"{where}: {kind}")
            return Uniform(low, high, points)
        case "quniform":
            low, high, q = _numbers(values, 3, f"{where}: {kind}")
            if not 0 < q <= high - low:
                raise ConfigError(f"{where}: quniform: expected a step above 0 and at most high - low, found {q:g}")
            for end in (low, high):
                if not math.isclose(end / q, round(end / q), abs_tol=1e-9):
                    raise ConfigError(f"{where}: quniform: expected ends that are multiples of {q:g}, found {end:g}")
            return QUniform(low, high, q)
        case "randint":
            low, high = _numbers(values, 2, f"{where}: {kind}")
            if not (isinstance(low, int) and isinstance(high, int)):
                raise ConfigError(f"{where}: randint: expected two whole numbers, found {values}")
            return RandInt(low, high)
        case "choice":
            if not values or not all(isinstance(v, Scalar) for v in values):
                raise ConfigError(f"{where}: choice: expected numbers, texts or booleans, found {values}")
            return Choice(tuple(values))
        case _:
            raise ConfigError(f"{where}: {kind} is no distribution, expected one of {' | '.join(KINDS)}")


def describe(distribution: Distribution) -> str:
    """As a file writes it, e.g. `loguniform [0.1, 10]`."""
    match distribution:
        case LogUniform(low, high, points) | Uniform(low, high, points):
            kind = "loguniform" if isinstance(distribution, LogUniform) else "uniform"
            return f"{kind} [{low:g}, {high:g}]" + (f", points {points}" if points else "")
        case QUniform(low, high, q):
            return f"quniform [{low:g}, {high:g}, {q:g}]"
        case RandInt(low, high):
            return f"randint [{low}, {high}]"
        case Choice(values):
            return f"choice [{', '.join(map(str, values))}]"
        case Fixed(value):
            return f"fixed {value}"
        case _:
            assert_never(distribution)


def to_domain(distribution: Distribution) -> Any:
    """Ray Tune's domain; a fixed value as it is."""
    from ray import tune  # a second and more: only those who search wait for it

    match distribution:
        case LogUniform(low, high):
            return tune.loguniform(low, high)
        case Uniform(low, high):
            return tune.uniform(low, high)
        case QUniform(low, high, q):
            return tune.quniform(low, high, q)
        case RandInt(low, high):
            return tune.randint(low, high)
        case Choice(values):
            return tune.choice(list(values))
        case Fixed(value):
            return value
        case _:
            assert_never(distribution)


def holds(distribution: Distribution, value: Any) -> bool:
    """Whether `value` can be drawn from `distribution`; the upper end of a range of reals counts as inside."""
    match distribution:
        case LogUniform(low, high) | Uniform(low, high):
            return _is_number(value) and low <= value <= high
        case QUniform(low, high, q):
            return _is_number(value) and low <= value <= high and math.isclose(value / q, round(value / q))
        case RandInt(low, high):
            return isinstance(value, int) and low <= value < high
        case Choice(values):
            return any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in values)
        case Fixed(fixed):
            return bool(value == fixed)
        case _:
            assert_never(distribution)


def ends(distribution: Distribution) -> Iterator[Scalar]:
    """Values at which to try whether a config takes what may be drawn."""
    match distribution:
        case LogUniform(low, high) | Uniform(low, high):
            yield float(low)
            yield low + (high - low) * 0.381966  # no whole number, so that a key of whole numbers refuses it
            yield float(high)
        case QUniform(low, high, q):
            yield float(low)
            yield low + q
            yield float(high)
        case RandInt(low, high):
            yield low
            yield high - 1
        case Choice(values):
            yield from values
        case Fixed(value):
            yield value
        case _:
            assert_never(distribution)


def grid_values(distribution: Distribution) -> tuple[Scalar, ...] | None:
    """What a grid takes of it, in order; None for reals whose `points` nobody has stated."""
    match distribution:
        case LogUniform(low, high, points):
            return None if points is None else tuple(np.geomspace(low, high, points).tolist())
        case Uniform(low, high, points):
            return None if points is None else tuple(np.linspace(low, high, points).tolist())
        case QUniform(low, high, q):
            # By whole steps, so that no sum of q drifts off its multiples.
            return tuple(step * q for step in range(round(low / q), round(high / q) + 1))
        case RandInt(low, high):
            return tuple(range(low, high))
        case Choice(values):
            return tuple(dict.fromkeys(values))
        case Fixed(value):
            return (value,)
        case _:
            assert_never(distribution)


def _numbers(values: list[Any], count: int, where: str) -> list[Any]:
    if len(values) != count or not all(_is_number(v) and math.isfinite(v) for v in values):
        raise ConfigError(f"{where}: expected {count} numbers, found {values}")
    if not values[0] < values[1]:
        raise ConfigError(f"{where}: expected low < high, found {values[0]:g} and {values[1]:g}")
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
