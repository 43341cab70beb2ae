"""A pipeline's file: the recipe of the teacher pair, that of the students, and the space that is searched for each.

both: {data: {train: [train_label.txt], val: [val_label.txt]}}
dml: {recipe: ../ppocrv3_det_dml.yaml, space: null, values: {}}
cml: {recipe: ../ppocrv3_det_cml.yaml, space: ../../search_spaces/cml_loss_weights.yaml, values: {}}
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocr_ray.config import CMLConfig, DMLConfig, RecipeConfig, decides_numbers, load_config, override
from ocr_ray.data.labels import data_digest
from ocr_ray.errors import ConfigError
from ocr_ray.recipes import read_train, read_val
from ocr_ray.record import pictures_digest
from ocr_ray.spaces import SearchSpace, load_space
from ocr_ray.typed import flatten, read_yaml, with_values
from ocr_ray.weights.load import weights_digest

STAGES = ("dml", "cml")
STAGE_KEYS = ("recipe", "space", "values")
WEIGHTS = ("student.weights", "teacher.weights")
"""Of these keys it is the file's bytes that count, not where it lies."""

CONFIRMING = ("sweep.confirm", "sweep.seeds")
"""Of a sweep's settings those that begin when its trials have ended."""


@dataclass(frozen=True)
class Stages:
    """What a pipeline runs. With `cml.teacher.weights` given there is a teacher, and `dml` is not run."""

    dml: DMLConfig
    cml: CMLConfig
    space: SearchSpace
    """Of the students' sweep."""
    teacher_space: SearchSpace | None = None
    """Of a sweep that the teacher comes from; None: one run."""


def load_stages(path: Path, overrides: Sequence[str] = ()) -> Stages:
    """A pipeline's file with `key=value` overrides: of both recipes, or of one as `dml.key=value`, `cml.key=value`.

    Raises: ConfigError, one line, naming the file or override and the key; as `load_config` and `load_space`.
    """
    plain = read_yaml(path, f"{', '.join(STAGES)} and both")
    for key in plain:
        if key not in (*STAGES, "both"):
            raise ConfigError(f"{path}: {key}: is no part of a pipeline, expected one of {', '.join(STAGES)}, both")
    both = _mapping(plain.get("both"), f"{path}: both")
    recipes, spaces = {}, {}
    for stage in STAGES:
        given = _mapping(plain.get(stage), f"{path}: {stage}")
        for key in given:
            if key not in STAGE_KEYS:
                raise ConfigError(f"{path}: {stage}.{key}: expected one of {', '.join(STAGE_KEYS)}")
        recipe = path.parent / _text(given.get("recipe"), f"{path}: {stage}.recipe")
        cfg = load_config(recipe)
        if cfg.recipe != stage:
            raise ConfigError(
                f"{path}: {stage}.recipe: {recipe} is a recipe for {cfg.recipe}, expected one for {stage}"
            )
        cfg = with_values(cfg, both, f"{path}: both")
        cfg = with_values(cfg, _mapping(given.get("values"), f"{path}: {stage}.values"), f"{path}: {stage}.values")
        recipes[stage] = override(cfg, [text for text in (_for(o, stage) for o in overrides) if text])
        space = given.get("space")
        spaces[stage] = None if space is None else path.parent / _text(space, f"{path}: {stage}.space")
    dml, cml = recipes["dml"], recipes["cml"]
    assert isinstance(dml, DMLConfig)
    assert isinstance(cml, CMLConfig)
    if spaces["cml"] is None:
        raise ConfigError(f"{path}: cml.space: expected a search space, e.g. search_spaces/cml_loss_weights.yaml")
    teacher_space = load_space(spaces["dml"], dml) if spaces["dml"] is not None else None
    return Stages(dml, cml, load_space(spaces["cml"], cml), teacher_space)


def stage_name(what: str, cfg: RecipeConfig, space: SearchSpace | None) -> str:
    """A folder's name that another input changes: `what`, a dash, and 10 hexadecimal digits of the deciding settings,
    those of the sweep where there is one, what the labels say, the pictures' sizes and what the weights hold.

    A confirmation or a test that is asked for later is made in the same folder, of the trials that lie there.

    Raises: ConfigError, DataError as `read_train`.
    """
    flat = flatten(cfg)
    read = (read_train(cfg), read_val(cfg))
    settings = {
        key: value
        for key, value in flat.items()
        if key not in WEIGHTS and (decides_numbers(key) or (space is not None and _decides_trials(key)))
    }
    weights = {key: Path(flat[key]) for key in WEIGHTS if flat.get(key)}
    plain = {
        "settings": settings,
        "space": None if space is None else space.identity(),
        "data": [digest(samples) for samples in read for digest in (data_digest, pictures_digest)],
        # Where there is no such file, the stage itself says so.
        "weights": {key: weights_digest(file) if file.exists() else str(file) for key, file in weights.items()},
    }
    return f"{what}-{hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:10]}"


def _decides_trials(key: str) -> bool:
    return key.startswith("sweep.") and key not in CONFIRMING


def _for(text: str, stage: str) -> str | None:
    """An override as the recipe of `stage` takes it; None where it is for the other one."""
    first, dot, rest = text.partition(".")
    if not dot or first not in STAGES:
        return text
    return rest if first == stage else None


def _mapping(given: Any, where: str) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: expected a mapping, found {given!r}")
    return {str(key): value for key, value in given.items()}


def _text(given: Any, where: str) -> str:
    if not isinstance(given, str) or not given:
        raise ConfigError(f"{where}: expected a file, found {given!r}")
    return given
