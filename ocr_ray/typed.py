"""One road between plain data and frozen, typed configs: files, command line, trials and metadata all take it.

A config is a frozen dataclass of numbers, texts, tuples, further configs, and unions of configs. The members of a
union are told apart by their field `kind`, a `Literal` of one word.
"""

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ocr_ray.errors import ConfigError, in_one_line

C = TypeVar("C")
Plain = dict[str, Any]


def read_yaml(path: Path, holds: str) -> Plain:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Args: holds says in errors what is expected, e.g. `keys to values`.
    Raises: ConfigError naming the file when it cannot be read, is no YAML, or is no mapping.
    """
    try:
        plain = OmegaConf.to_container(OmegaConf.load(path))
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror or 'cannot be read'}") from e
    except OmegaConfBaseException as e:
        raise ConfigError(f"{path}: not a YAML file: {in_one_line(e)}") from e
    except (YAMLError, UnicodeDecodeError) as e:  # several lines that say where
        raise ConfigError(f"{path}: not a YAML file: {' '.join(str(e).split())}") from e
    if not isinstance(plain, dict):
        raise ConfigError(f"{path}: expected a mapping of {holds}, found {type(plain).__name__}")
    return {str(key): value for key, value in plain.items()}


def from_plain(cls: type[C], plain: Mapping[str, Any], source: str) -> C:
    """A `cls` with its defaults replaced by what `plain` holds; nested mappings reach nested configs.

    Raises: ConfigError naming `source`, the dotted key, and what was expected or the nearest key.
    """
    return _merge(cls(), plain, source)


def with_values(cfg: C, values: Mapping[str, Any], source: str) -> C:
    """A new config in which dotted keys are replaced, e.g. `{"loss.dml.weight": 2.31}`.

    Raises: ConfigError naming `source`, the key, and what was expected or the nearest key.
    """
    plain: Plain = {}
    for key, value in values.items():
        *folders, leaf = key.split(".")
        at = plain
        for folder in folders:
            at = at.setdefault(folder, {})
            if not isinstance(at, dict):
                raise ConfigError(f"{source}: {key}: {folder} is given a value of its own as well")
        at[leaf] = value
    return _merge(cfg, plain, source)


def to_plain(cfg: Any) -> Plain:
    """Nested plain data (dicts, lists, numbers, texts), as YAML or JSON can hold."""
    plain = OmegaConf.to_container(OmegaConf.structured(cfg))
    assert isinstance(plain, dict)
    return typing.cast(Plain, plain)


def flatten(cfg: Any) -> dict[str, Any]:
    """Dotted key to value, in order, e.g. `{"loss.dml.weight": 1.0, ...}`; tuples stay whole, as lists."""
    flat: dict[str, Any] = {}

    def walk(node: Plain, prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value

    walk(to_plain(cfg), "")
    return flat


def _merge(cfg: C, plain: Mapping[str, Any], source: str) -> C:
    if not isinstance(plain, Mapping):
        raise ConfigError(f"{source}: expected a mapping of keys to values, found {type(plain).__name__}")
    try:
        base, plain = _fitted(cfg, plain, source, "", flatten(cfg))
        merged = OmegaConf.merge(OmegaConf.structured(base), OmegaConf.create(dict(plain)))
        assert isinstance(merged, DictConfig)
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise ConfigError(f"{source}: {missing[0]}: a value is needed")
        return _made(merged, source)
    except OmegaConfBaseException as e:
        raise ConfigError(_one_line(e, source)) from e


def _made(merged: DictConfig, source: str) -> Any:
    try:
        return OmegaConf.to_object(merged)
    except ConfigError as e:  # of a config's own checks, which do not know where their values came from
        raise ConfigError(f"{source}: {e}") from e


def _one_line(error: OmegaConfBaseException, source: str) -> str:
    return f"{source}: {error.full_key}: {in_one_line(error)}" if error.full_key else f"{source}: {in_one_line(error)}"


def _fitted(cfg: C, plain: Mapping[str, Any], source: str, prefix: str, all_keys: Iterable[str]) -> tuple[C, Plain]:
    """`cfg` and `plain` made to fit each other before OmegaConf merges them.

    Each union member in `cfg` becomes the one whose `kind` is named in `plain`, since OmegaConf keeps the default's
    type; a text given for a tuple of texts becomes a tuple of one.

    Raises: ConfigError for a key that is not there, with the nearest of `all_keys`; for a value in the place of a group
        of keys, or keys in the place of a value.
    """
    changes: dict[str, Any] = {}
    fitted: Plain = dict(plain)
    hints = typing.get_type_hints(type(cfg))
    names = [field.name for field in dataclasses.fields(cfg)]  # type: ignore[arg-type]
    for name, given in plain.items():
        key = f"{prefix}{name}"
        if name not in names:
            near = _nearest(str(name), given, prefix, names, all_keys)
            raise ConfigError(f"{source}: {key}: Key {str(name)!r} is not a key of {type(cfg).__name__!r}. {near}")
        if isinstance(given, str) and given == MISSING:
            raise ConfigError(f"{source}: {key}: a value is needed")
    for name, given in plain.items():
        hint, key = hints[name], prefix + name
        if given is not None and typing.get_origin(hint) is tuple:
            fitted[name] = _fitted_tuple(hint, given, f"{source}: {key}")
        configs = _configs(hint)
        if not configs:
            if isinstance(given, Mapping):
                raise ConfigError(f"{source}: {key}: expected a value, found keys ({', '.join(map(str, given))})")
            continue
        value = getattr(cfg, name) or configs[0]()
        if not isinstance(given, Mapping):
            is_absent = given is None and type(None) in typing.get_args(hint)
            if not is_absent and not (isinstance(given, str) and "${" in given):
                e_g = next(iter(flatten(value)))
                raise ConfigError(f"{source}: {key}: is a group, expected one of its keys, e.g. {key}.{e_g}")
            continue
        if len(configs) > 1 and "kind" in given:
            by_kind = {_kind(member): member for member in configs}
            kind = str(given["kind"])
            if kind not in by_kind:
                raise ConfigError(f"{source}: {key}.kind: {kind!r} is not one of {', '.join(sorted(by_kind))}")
            if type(value) is not by_kind[kind]:
                value = by_kind[kind]()
        changes[name], fitted[name] = _fitted(value, given, source, f"{key}.", all_keys)
    return (dataclasses.replace(cfg, **changes) if changes else cfg), fitted  # type: ignore[type-var]


def _fitted_tuple(hint: Any, given: Any, where: str) -> Any:
    items = typing.get_args(hint)
    if isinstance(given, str) and items == (str, ...):
        return [given]
    if not isinstance(given, list | tuple):
        if isinstance(given, str) and "${" in given:
            return given
        raise ConfigError(f"{where}: expected a list, found {given!r}")
    if ... not in items and len(given) != len(items):
        raise ConfigError(f"{where}: {list(given)} has {len(given)} values, expected {len(items)}")
    if MISSING in given:
        raise ConfigError(f"{where}: a value is needed")
    if any(isinstance(item, list | tuple | Mapping) for item in given):
        raise ConfigError(f"{where}: expected plain values, found {list(given)}")
    return given


def _configs(hint: Any) -> list[Any]:
    """The configs among what a field may hold: one, the members of a union, or none."""
    return [m for m in (typing.get_args(hint) or (hint,)) if isinstance(m, type) and dataclasses.is_dataclass(m)]


def _nearest(name: str, given: Any, prefix: str, beside: list[str], all_keys: Iterable[str]) -> str:
    """What the unknown key `name` was meant to be: a slip of a key beside it, a key of that name elsewhere, one of that
    meaning (`learning_rate`, `wd`), a slip of a key elsewhere; or else what keys there are.

    Args: given is the value, whose own keys tell `postprocess.thresh` from another `postprocess`.
    """
    folders = prefix.split(".")[:-1]
    tail = [name]
    while isinstance(given, Mapping) and given:
        below, given = next(iter(given.items()))
        tail.append(str(below))
    dotted = {key: key.split(".") for key in _with_groups(all_keys)}

    def ending(with_: list[str]) -> list[str]:
        return [key for key, parts in dotted.items() if parts[-len(with_) :] == with_]

    def elsewhere() -> Iterator[list[str]]:
        for length in range(len(folders), -1, -1):
            yield ending([*folders[len(folders) - length :], *tail])
        yield ending([name])

    slips = [[n] for n in difflib.get_close_matches(name, beside, 1)]
    same = list(elsewhere())
    meant = [key for key, parts in dotted.items() if _initials(name) == parts[-1] or name == _initials(parts[-1])]
    last = difflib.get_close_matches(name, {parts[-1] for parts in dotted.values()}, 1, cutoff=0.75)
    far = [key for word in last for key in ending([word])]
    # At the top a key's name alone (`val`, `seed`) is more likely than a slip of a group's (`eval`, `sweep`).
    for found in [*slips, *same, meant, far] if folders else [*same, *slips, meant, far]:
        if found:
            shared = {key: _shared(folders, key.split(".")) for key in found}
            nearest = [key for key in found if shared[key] == max(shared.values())]
            return f"Did you mean: {' or '.join(map(repr, nearest[:3]))}?"
    return f"Its keys: {', '.join(beside)}"


def _with_groups(keys: Iterable[str]) -> list[str]:
    """Dotted keys and the groups they are in, each once."""
    found: dict[str, None] = {}
    for key in keys:
        parts = key.split(".")
        found |= dict.fromkeys(".".join(parts[:length]) for length in range(1, len(parts) + 1))
    return list(found)


def _initials(name: str) -> str | None:
    """Of a name of several words; None for one word."""
    return "".join(word[:1] for word in name.split("_")) if "_" in name else None


def _shared(folders: list[str], parts: list[str]) -> int:
    """How many folders the two have in common, from the top."""
    return next((i for i, (a, b) in enumerate(zip(folders, parts, strict=False)) if a != b), len(folders))


def _kind(member: type) -> str:
    return str(typing.get_args(typing.get_type_hints(member)["kind"])[0])
