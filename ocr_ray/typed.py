"""One road between plain data and frozen, typed configs: files, command line, trials and metadata all take it.

A config is a frozen dataclass of numbers, texts, tuples, further configs, and unions of configs. The members of a
union are told apart by their field `kind`, a `Literal` of one word.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from ocr_ray.errors import ConfigError

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
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as e:
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
        base, plain = _fitted(cfg, plain, source, "")
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
    first = str(error).splitlines()[0]
    if isinstance(error, ConfigKeyError) and error.full_key and first.startswith("Key '"):
        first = first.replace(" not in '", " is not a key of '", 1)
    return f"{source}: {error.full_key}: {first}" if error.full_key else f"{source}: {first}"


def _fitted(cfg: C, plain: Mapping[str, Any], source: str, prefix: str) -> tuple[C, Plain]:
    """`cfg` and `plain` made to fit each other before OmegaConf merges them.

    Each union member in `cfg` becomes the one whose `kind` is named in `plain`, since OmegaConf keeps the default's
    type; a text given for a tuple of texts becomes a tuple of one.
    """
    changes: dict[str, Any] = {}
    fitted: Plain = dict(plain)
    hints = typing.get_type_hints(type(cfg))
    for field in dataclasses.fields(cfg):  # type: ignore[arg-type]
        hint, given = hints[field.name], plain.get(field.name)
        if given is not None and typing.get_origin(hint) is tuple:
            fitted[field.name] = _fitted_tuple(hint, given, f"{source}: {prefix}{field.name}")
        if not isinstance(given, Mapping):
            continue
        value = getattr(cfg, field.name)
        key = prefix + field.name
        members = _members(hint)
        if members and "kind" in given:
            by_kind = {_kind(member): member for member in members}
            kind = str(given["kind"])
            if kind not in by_kind:
                raise ConfigError(f"{source}: {key}.kind: {kind!r} is not one of {', '.join(sorted(by_kind))}")
            if type(value) is not by_kind[kind]:
                value = by_kind[kind]()
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value, fitted[field.name] = _fitted(value, given, source, f"{key}.")
        changes[field.name] = value
    return (dataclasses.replace(cfg, **changes) if changes else cfg), fitted  # type: ignore[type-var]


def _fitted_tuple(hint: Any, given: Any, where: str) -> Any:
    items = typing.get_args(hint)
    if isinstance(given, str) and items == (str, ...):
        return [given]
    if isinstance(given, list | tuple) and ... not in items and len(given) != len(items):
        raise ConfigError(f"{where}: {list(given)} has {len(given)} values, expected {len(items)}")
    return given


def _members(hint: Any) -> list[type]:
    """The configs of a union such as `MobileNetV3Config | ResNetVdConfig`; empty for anything else."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return []
    members = [m for m in typing.get_args(hint) if isinstance(m, type)]
    return [m for m in members if dataclasses.is_dataclass(m) and "kind" in typing.get_type_hints(m)]


def _kind(member: type) -> str:
    return str(typing.get_args(typing.get_type_hints(member)["kind"])[0])
