"""A warm start: finished trials of earlier sweeps, found in MLflow, from which a searcher learns before its own.

Only what can be compared is taken: trials on the same data, from the same weights, whose configs differ from this one
in nothing but the keys that are searched now, and there lie inside the space. The rest is named with its reason.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from ray.tune.search.optuna import OptunaSearch

from ocr_ray.config import RecipeConfig, decides_numbers
from ocr_ray.distributions import Choice, Distribution, RandInt, Scalar, ends, holds
from ocr_ray.errors import RunError
from ocr_ray.files import write_text
from ocr_ray.record import RunRecord
from ocr_ray.search.trial import OBJECTIVE
from ocr_ray.spaces import SearchSpace
from ocr_ray.tracked import TrackedRuns
from ocr_ray.tracking import LEDGER_FILE, STAGE_TAG, TOOK_OVER
from ocr_ray.typed import flatten

if TYPE_CHECKING:
    from mlflow.entities import Run

WARM_FILE = "warm_start.json"
BLIND = ("random", "grid")
"""Searchers that do not look at results."""
MOST_LINES = 5
"""For trials of one sweep that are not taken; of more the reasons are counted."""
STUDY = "optuna"
"""The name under which Ray's OptunaSearch looks for its study."""
AS_GOOD = (
    *("run.seed", "run.threads", "run.channels_last", "run.evaluate_start"),
    *("data.num_workers", "data.max_failed", "eval.batch_size"),
)
"""Keys in which trials may differ and still be compared: other draws of the same thing, or other last bits."""
BY_CONTENTS = ("data.train", "data.val", "data.root", "student.weights", "teacher.weights")
"""Keys that name files, which are compared by their digests."""


@dataclass(frozen=True)
class EarlierTrial:
    """What a searcher is told of it."""

    values: dict[str, Scalar]
    """Of all keys that are searched now."""
    hmean: float
    """The best over its epochs, as trials are judged by here."""


@dataclass(frozen=True)
class WarmStart:
    """The trials that are taken, and what is to be said about them and the others."""

    trials: tuple[EarlierTrial, ...] = ()
    lines: tuple[str, ...] = ()


def find_earlier(
    sweeps: Sequence[str], cfg: RecipeConfig, space: SearchSpace, record: RunRecord, storage: Path, uri: str
) -> WarmStart:
    """Looks through earlier sweeps.

    Args: sweeps are names of sweeps in the storage, or MLflow's ids of their parents in the store at `uri`; record is
        that of the sweep that begins.
    Raises: RunError when there is no such sweep, or the store does not answer.
    """
    if not sweeps:
        return WarmStart()
    if cfg.sweep.searcher in BLIND:
        return WarmStart((), (f"warm start: not used: sweep.searcher={cfg.sweep.searcher} looks at no results",))
    trials: list[EarlierTrial] = []
    lines: list[str] = []
    for name in dict.fromkeys(sweeps):
        runs, parent = _parent(name, storage, uri)
        other = _other_inputs(parent.data.tags, record)
        if other:
            lines.append(f"warm start: {name}: not taken: {other}")
            continue
        children = [child for child in runs.children(parent) if STAGE_TAG not in child.data.tags]
        refused: list[tuple[str, str]] = []
        for child in children:
            taken = _compatible(child, cfg, space)
            if isinstance(taken, EarlierTrial):
                trials.append(taken)
            else:
                refused.append((child.info.run_name, taken))
        lines.append(f"warm start: {name}: {len(children) - len(refused)} of {len(children)} trials taken")
        lines += _listed(name, refused)
    return WarmStart(tuple(trials), tuple(lines))


def study_with(trials: Sequence[EarlierTrial], space: SearchSpace) -> optuna.storages.BaseStorage:
    """An Optuna storage that OptunaSearch takes up, with these as finished trials in its study."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it otherwise announces its study
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name=STUDY, direction="maximize")
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(value=trial.hmean, params=dict(trial.values), distributions=_distributions(space))
        )
    return storage


def keep_warm(folder: Path, trials: Sequence[EarlierTrial]) -> None:
    """Writes them into the sweep's folder, so that a resume need not look for them, nor finds others."""
    write_text(folder / WARM_FILE, json.dumps([asdict(trial) for trial in trials], indent=1))


def kept_warm(folder: Path) -> tuple[EarlierTrial, ...]:
    """What `keep_warm` wrote, if anything."""
    path = folder / WARM_FILE
    return tuple(EarlierTrial(**trial) for trial in json.loads(path.read_text())) if path.exists() else ()


def _parent(name: str, storage: Path, uri: str) -> "tuple[TrackedRuns, Run]":
    ledger = storage / name / LEDGER_FILE
    run_id = name
    if ledger.exists():
        read = json.loads(ledger.read_text())
        uri, run_id = read["uri"], read["runs"].get(name, "")
    runs = TrackedRuns(uri)
    try:
        parent = runs.run(run_id)
    except RunError as e:
        raise RunError(f"--warm-start {name}: no sweep of that name in {storage}, and no such run in {uri}") from e
    if "search_space" not in parent.data.tags:
        raise RunError(f"--warm-start {name}: is a single run, expected a sweep")
    return runs, parent


def _other_inputs(tags: Mapping[str, str], record: RunRecord) -> str:
    """What its data or weights have other than those of `record`, in a few words."""
    before = {key.removeprefix("digest."): value for key, value in tags.items() if key.startswith("digest.")}
    if not before:
        return "its record does not say which data it had"
    keys = [key for key in dict.fromkeys([*before, *record.inputs]) if decides_numbers(key)]
    odd = [key for key in keys if before.get(key) != record.inputs.get(key)]
    return f"other {', '.join(odd)}" if odd else ""


def _compatible(child: "Run", cfg: RecipeConfig, space: SearchSpace) -> EarlierTrial | str:
    """The trial, or why it is not taken."""
    end, hmean = child.data.tags.get("end", "not ended"), child.data.metrics.get(OBJECTIVE)
    if TOOK_OVER in child.data.tags:
        return "went on from the weights of another trial"
    if end != "finished" or hmean is None:
        return end if end != "finished" else "no hmean"
    params = child.data.params
    for key, now in json.loads(json.dumps(flatten(cfg))).items():
        if key in space.varied or key in AS_GOOD or key in BY_CONTENTS or not decides_numbers(key):
            continue
        if key in params and params[key] != str(now):
            return f"{key} was {params[key]}, here it is {now}"
    values: dict[str, Scalar] = {}
    outside: dict[str, str] = {}
    for key, distribution in space.distributions:
        if key not in space.varied:
            continue
        if key not in params:
            return f"{key} is not in its record"
        try:
            value = _read(params[key], distribution)
        except ValueError:
            outside[key] = f"{key}={params[key]} lies outside the space"
            value = next(ends(distribution))
        values[key] = value
    for condition in space.conditions:  # an idle key has the config's own value, and any other is as true
        if not condition.holds(values):
            outside.pop(condition.key, None)
    return next(iter(outside.values())) if outside else EarlierTrial(values, hmean)


def _read(text: str, distribution: Distribution) -> Scalar:
    """A parameter as MLflow holds it, as the value that it was. Raises: ValueError where it cannot be drawn."""
    if isinstance(distribution, Choice):
        same = [choice for choice in distribution.values if str(choice) == text]
        if not same:
            raise ValueError(text)
        return same[0]
    value = int(text) if isinstance(distribution, RandInt) else float(text)
    if not holds(distribution, value):
        raise ValueError(text)
    return value


def _distributions(space: SearchSpace) -> dict[str, Any]:
    domains = space.to_tune()
    return OptunaSearch.convert_search_space({key: domains[key] for key in space.varied})


def _listed(name: str, refused: Sequence[tuple[str, str]]) -> list[str]:
    if len(refused) <= MOST_LINES:
        return [f"warm start: {name}: {trial} not taken: {why}" for trial, why in refused]
    counted = Counter(why.split("=")[0].split(" was ")[0] for _, why in refused)  # without their values
    reasons = (f"{count} of them {_kind(why, refused)}" for why, count in counted.most_common())
    return [f"warm start: {name}: {len(refused)} trials not taken: {'; '.join(reasons)}"]


def _kind(short: str, refused: Sequence[tuple[str, str]]) -> str:
    """A reason without the values of single trials."""
    whole = next(why for _, why in refused if why.startswith(short))
    if "=" in whole:
        return f"with {short} outside the space"
    return f"with another {short}" if " was " in whole else whole
