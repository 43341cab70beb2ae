"""Search spaces: files that give dotted config keys a distribution, checked against the config that they vary.

    loss.dml.weight: {loguniform: [0.1, 10.0]}
    optim.epochs: 30

The draws reach a trial's config by `typed.with_values`, the road of `key=value` on the command line.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from ocr_ray.errors import ConfigError
from ocr_ray.typed import flatten, read_yaml, with_values

Scalar = bool | int | float | str | None


@dataclass(frozen=True)
class LogUniform:
    """Real, uniform in its logarithm, `low <= value < high`."""

    low: float
    high: float


@dataclass(frozen=True)
class Uniform:
    """Real, `low <= value < high`."""

    low: float
    high: float


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

NO_TRAINING = ("recipe", "ray", "sweep", "tracking")
"""Parts of a config that decide where a run happens and who watches, not what it learns."""


@dataclass(frozen=True)
class SearchSpace:
    """Dotted key to distribution, in the order of the file; `source` is what errors call it."""

    source: str
    distributions: tuple[tuple[str, Distribution], ...]

    @property
    def varied(self) -> tuple[str, ...]:
        """Keys in which trials differ."""
        return tuple(key for key, d in self.distributions if not isinstance(d, Fixed))

    @property
    def fixed(self) -> dict[str, Scalar]:
        """Keys that have one value in all trials."""
        return {key: d.value for key, d in self.distributions if isinstance(d, Fixed)}

    def to_tune(self) -> dict[str, Any]:
        """Ray Tune's domains by dotted key; fixed values as they are."""
        from ray import tune  # a second and more: only those who search wait for it

        def domain(distribution: Distribution) -> Any:
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

        return {key: domain(distribution) for key, distribution in self.distributions}

    def own_values(self, cfg: Any) -> dict[str, Scalar] | None:
        """The config's own values of the varied keys, or None where one of them lies outside the space."""
        flat = flatten(cfg)
        values = {key: flat.get(key) for key in self.varied}
        inside = all(holds(d, values[key]) for key, d in self.distributions if key in values)
        return values if inside else None


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


def load_space(path: Path, cfg: Any) -> SearchSpace:
    """Reads a search space for trials that vary `cfg`, and tries both ends of each range in it.

    Raises: ConfigError, one line `file: key: ...`, for a key that the config does not have (with the nearest one), is
        a group or decides nothing in this setting; for a distribution that is none; for values that the key's type or
        the config's own checks refuse.
    """
    plain = read_yaml(path, "dotted keys to distributions")
    if not plain:
        raise ConfigError(f"{path}: expected a mapping of dotted keys to distributions")
    return space_from_plain(plain, cfg, str(path))


def space_from_plain(plain: Mapping[str, Any], cfg: Any, source: str) -> SearchSpace:
    """As `load_space`, from what the file would hold, e.g. `{"optim.lr": {"loguniform": [1e-4, 1e-2]}}`."""
    space = SearchSpace(source, tuple((key, _distribution(given, f"{source}: {key}")) for key, given in plain.items()))
    flat = flatten(cfg)
    for key in plain:
        _check_key(key, flat, source)
    if not space.varied:
        raise ConfigError(f"{source}: expected at least one key with a distribution, found fixed values only")
    _check_values(space, cfg)
    for key in space.varied:
        reason = _dead(key, space, flat)
        if reason:
            raise ConfigError(f"{source}: {key}: decides nothing here, since {reason}")
    return space


def _distribution(given: Any, where: str) -> Distribution:
    if isinstance(given, list):
        raise ConfigError(f"{where}: expected {{choice: {given}}} or one value, found a list")
    if not isinstance(given, dict):
        return Fixed(given)
    if len(given) != 1:
        raise ConfigError(
            f"{where}: expected one distribution ({' | '.join(KINDS)}), found {', '.join(given) or 'none'}"
        )
    ((kind, values),) = given.items()
    if not isinstance(values, list):
        raise ConfigError(f"{where}: {kind}: expected a list, found {values!r}")
    match kind:
        case "loguniform":
            low, high = _numbers(values, 2, f"{where}: {kind}")
            if low <= 0:
                raise ConfigError(f"{where}: loguniform: expected a low end above 0, found {low:g}")
            return LogUniform(low, high)
        case "uniform":
            return Uniform(*_numbers(values, 2, f"{where}: {kind}"))
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


def _numbers(values: list[Any], count: int, where: str) -> list[Any]:
    if len(values) != count or not all(_is_number(v) and math.isfinite(v) for v in values):
        raise ConfigError(f"{where}: expected {count} numbers, found {values}")
    if not values[0] < values[1]:
        raise ConfigError(f"{where}: expected low < high, found {values[0]:g} and {values[1]:g}")
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_key(key: str, flat: Mapping[str, Any], source: str) -> None:
    if key.split(".")[0] in NO_TRAINING:
        raise ConfigError(
            f"{source}: {key}: is no setting of the training, and would be the same search in every trial"
        )
    leaves = [leaf for leaf in flat if leaf.startswith(f"{key}.")]
    if leaves:
        raise ConfigError(f"{source}: {key}: is a group, expected one of its keys, e.g. {leaves[0]}")


def _check_values(space: SearchSpace, cfg: Any) -> None:
    """Each end of each key must be accepted; where keys bound one another, with the others at some end of theirs."""
    cfg = with_values(cfg, space.fixed, space.source)
    ends = {key: tuple(_ends(d)) for key, d in space.distributions if not isinstance(d, Fixed)}
    companies: list[dict[str, Scalar]] = [
        {}, {key: values[0] for key, values in ends.items()}, {key: values[-1] for key, values in ends.items()}
    ]  # fmt: skip
    for key, values in ends.items():
        for value in values:
            refusals: list[ConfigError] = []
            for others in companies:
                try:
                    with_values(cfg, {**others, key: value}, space.source)
                    break
                except ConfigError as e:
                    refusals.append(e)
            else:
                raise refusals[0]


def _ends(distribution: Distribution) -> Iterator[Scalar]:
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


def _dead(key: str, space: SearchSpace, flat: Mapping[str, Any]) -> str | None:
    """Why no value of `key` can change a trial, as `other.key=value`; None when one can."""
    *folders, leaf = key.split(".")
    distributions = dict(space.distributions)

    def always(other: str, value: Any) -> bool:
        if other == key or (other not in flat and other not in distributions):
            return False
        given = distributions.get(other)
        if given is None:
            return bool(flat[other] == value)
        return isinstance(given, Fixed) and given.value == value

    group = ".".join(folders)
    if leaf == "ohem_ratio":
        if always(f"{group}.main", "dice"):
            return f"{group}.main=dice, one number for all pixels, has no hard ones to mine"
        if always(f"{group}.balance", False):
            return f"{group}.balance=false"
    for depth in range(1, len(folders) + 1):
        above = ".".join(folders[:depth])
        if always(f"{above}.enabled", False):
            return f"{above}.enabled=false"
        if above.startswith("loss.") and always(f"{above}.weight", 0):
            return f"{above}.weight=0"
    return None
