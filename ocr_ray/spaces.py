"""Search spaces: files that give dotted config keys a distribution, checked against the config that they vary.

    loss.dml.weight: {loguniform: [0.1, 10.0]}
    loss.db.main: {choice: [dice, bce]}
    loss.db.ohem_ratio: {uniform: [1, 9], when: {loss.db.main: bce}}
    optim.lr: {loguniform: [1e-4, 1e-2], points: 5}
    optim.epochs: 30

`when` names keys of the same file and the value, or a list of values, that each must have for the key to be drawn; in
other trials it has the config's own. Such keys are drawn from a `choice`, `randint` or `quniform`, in every trial.
(Searchers draw all keys in all trials, so that any of them can be used; a draw whose condition does not hold is put
aside.) `points` is how many of a range of reals a grid takes.

The draws reach a trial's config by `typed.with_values`, the road of `key=value` on the command line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocr_ray.distributions import (
    Choice,
    Distribution,
    Fixed,
    LogUniform,
    QUniform,
    RandInt,
    Scalar,
    describe,
    distribution_from_plain,
    ends,
    holds,
    to_domain,
)
from ocr_ray.errors import ConfigError
from ocr_ray.typed import flatten, read_yaml, with_values

NO_TRAINING = ("recipe", "ray", "sweep", "tracking")
"""Parts of a config that decide where a run happens and who watches, not what it learns."""


@dataclass(frozen=True)
class Condition:
    """`key` is drawn only in trials in which `other` is one of `values`."""

    key: str
    other: str
    values: tuple[Scalar, ...]

    def holds(self, drawn: Mapping[str, Any]) -> bool:
        """Whether it does in a trial with these values."""
        return self.other in drawn and holds(Choice(self.values), drawn[self.other])

    def one_line(self) -> str:
        """E.g. `loss.db.main = bce`."""
        return f"{self.other} = {' or '.join(map(str, self.values))}"


@dataclass(frozen=True)
class SearchSpace:
    """Dotted key to distribution, in the order of the file; `source` is what errors call it."""

    source: str
    distributions: tuple[tuple[str, Distribution], ...]
    conditions: tuple[Condition, ...] = ()
    """A key with several is drawn where all of them hold."""

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
        return {key: to_domain(distribution) for key, distribution in self.distributions}

    def identity(self) -> dict[str, str]:
        """Dotted key to what it is drawn from, in words: two spaces that are the same search have the same."""
        return {
            key: " ".join([describe(distribution), *(f"when {c.one_line()}" for c in self.conditions if c.key == key)])
            for key, distribution in self.distributions
        }

    def settled(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Of a trial's draws those that count: whose conditions hold. The others leave the config's own value."""
        idle = {condition.key for condition in self.conditions if not condition.holds(drawn)}
        return {key: value for key, value in drawn.items() if key not in idle}

    def own_values(self, cfg: Any) -> dict[str, Scalar] | None:
        """The config's own values of the varied keys, or None where one that counts lies outside the space."""
        flat, distributions = flatten(cfg), dict(self.distributions)
        values = {key: flat.get(key) for key in self.varied}
        outside = [key for key in values if not holds(distributions[key], values[key])]
        if set(outside) & set(self.settled(values)):
            return None
        return {**values, **{key: next(ends(distributions[key])) for key in outside}}  # put aside, yet drawable

    def neighbours(self, own: Mapping[str, Scalar]) -> list[dict[str, Scalar]]:
        """Values that differ from `own` in one key, halved or doubled, where the space holds that.

        Only keys drawn log-uniformly, for which a factor is a step; those of the loss come first, in the file's order.
        """
        counts = self.settled(own)
        keys = [key for key, d in self.distributions if isinstance(d, LogUniform) and key in counts]
        distributions, found = dict(self.distributions), []
        for key in sorted(keys, key=lambda key: not key.startswith("loss.")):
            value = own[key]
            assert isinstance(value, int | float)
            found += [{**own, key: value * f} for f in (0.5, 2.0) if holds(distributions[key], value * f)]
        return found


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
    distributions: list[tuple[str, Distribution]] = []
    conditions: list[Condition] = []
    for key, given in plain.items():
        if isinstance(given, dict) and "when" in given:
            conditions += _conditions(key, given["when"], f"{source}: {key}: when")
            given = {name: value for name, value in given.items() if name != "when"}
        distributions.append((key, distribution_from_plain(given, f"{source}: {key}")))
    space = SearchSpace(source, tuple(distributions), tuple(conditions))
    flat = flatten(cfg)
    for key in plain:
        _check_key(key, flat, source)
    if not space.varied:
        raise ConfigError(f"{source}: expected at least one key with a distribution, found fixed values only")
    _check_conditions(space)
    _check_values(space, cfg)
    for key in space.varied:
        reason = _dead(key, space, flat)
        if reason:
            raise ConfigError(f"{source}: {key}: decides nothing here, since {reason}")
    return space


def _conditions(key: str, when: Any, where: str) -> list[Condition]:
    if not isinstance(when, dict) or not when:
        raise ConfigError(f"{where}: expected {{another.key: value}}, found {when!r}")
    found = []
    for other, given in when.items():
        values = tuple(given) if isinstance(given, list) else (given,)
        if not values or not all(isinstance(value, Scalar) for value in values):
            raise ConfigError(f"{where}: {other}: expected a value or a list of values, found {given!r}")
        found.append(Condition(key, str(other), values))
    return found


def _check_conditions(space: SearchSpace) -> None:
    """Each must be on a key of which some trials have the value."""
    distributions, under = dict(space.distributions), {condition.key for condition in space.conditions}
    for condition in space.conditions:
        where = f"{space.source}: {condition.key}: when: {condition.other}"
        other = distributions.get(condition.other)
        if not isinstance(other, Choice | RandInt | QUniform):
            found = "not in this file" if other is None else describe(other)
            raise ConfigError(f"{where}: expected a key with a choice, randint or quniform, found {found}")
        if condition.other in under:
            raise ConfigError(f"{where}: expected a key that is drawn in every trial, found one with a `when`")
        for value in condition.values:
            if not holds(other, value):
                raise ConfigError(f"{where}: expected what it may be drawn as, {describe(other)}, found {value!r}")


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
    tried = {key: tuple(ends(d)) for key, d in space.distributions if not isinstance(d, Fixed)}
    companies: list[dict[str, Scalar]] = [
        {}, {key: values[0] for key, values in tried.items()}, {key: values[-1] for key, values in tried.items()}
    ]  # fmt: skip
    for key, values in tried.items():
        needed = {c.other: c.values[0] for c in space.conditions if c.key == key}
        for value in values:
            refusals: list[ConfigError] = []
            for others in companies:
                try:
                    with_values(cfg, space.settled({**others, **needed, key: value}), space.source)
                    break
                except ConfigError as e:
                    refusals.append(e)
            else:
                raise refusals[0]


def _dead(key: str, space: SearchSpace, flat: Mapping[str, Any]) -> str | None:
    """Why no value of `key` can change a trial, as `other.key=value`; None when one can."""
    *folders, leaf = key.split(".")
    distributions = dict(space.distributions)
    needed = {condition.other: condition.values for condition in space.conditions if condition.key == key}

    def always(other: str, value: Any) -> bool:
        if other == key or (other not in flat and other not in distributions):
            return False
        if other in needed:
            return all(needed_value == value for needed_value in needed[other])
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
