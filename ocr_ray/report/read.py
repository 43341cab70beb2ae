"""A sweep's folder on disk → what a page about it needs, typed.

Everything is read as it lies there, by its keys, and what is missing is None or empty: the folder may be of an older
sweep, of one that runs at this moment or that was killed, and its weights may have been moved or deleted.
"""

import ast
import contextlib
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ocr_ray.confirming import read_confirming
from ocr_ray.errors import RunError, in_one_line
from ocr_ray.report.contents import (
    Arm,
    Confirmation,
    Difference,
    Epoch,
    ImageCounts,
    Knob,
    Scalar,
    Scale,
    Sweep,
    Trial,
    is_number,
    knob,
)
from ocr_ray.reports import CONFIRMATION_FILE, USED_CONFIG, read_reports
from ocr_ray.search.trials import TRIALS_FILE
from ocr_ray.teaching.sharing import TEACHER_FILE
from ocr_ray.typed import read_yaml

CONFIG_FILE, START_FILE, REPORT_FILE = "config.yaml", "start.json", "report.html"
START_COUNTS = "start_per_image.json"
"""What the weights that training started from give on each picture of val."""
TEST_FOLDER = "test"
"""A file of counts by picture for each weights that were evaluated on `data.test`; `of` names them."""
TRIALS_FOLDER = "train"
WEIGHTS = Path("best/student.safetensors")
PER_IMAGE = "per_image.json"


def sweep_folder(given: Path, storage: Path = Path("runs")) -> Path:
    """The folder of a sweep, given as such or by its name in the folder `storage`.

    Raises: RunError when neither is a folder with the books of a sweep.
    """
    places = [given] if given.is_absolute() else [given, storage / given]
    for place in places:
        if (place / TRIALS_FILE).is_file():
            return place
    found = next((place for place in places if place.is_dir()), None)
    if found is not None:
        raise RunError(f"{found}: is no sweep, or none whose first trial has started: {TRIALS_FILE} is not there")
    raise RunError(f"{given}: expected the folder of a sweep, or the name of one in {storage}/; found neither")


def read_sweep(folder: Path) -> Sweep:
    """Reads the sweep in `folder`. Raises: RunError when its books cannot be read."""
    book = _json(folder / TRIALS_FILE)
    if not isinstance(book, dict) or not isinstance(book.get("trials"), list):
        raise RunError(f"{folder / TRIALS_FILE}: expected the books of a sweep")
    config = flat(read_yaml(folder / CONFIG_FILE, "a config")) if (folder / CONFIG_FILE).exists() else {}
    is_population = config.get("sweep.scheduler") == "pbt"
    trials = tuple(sorted((_trial(t, folder, is_population) for t in book["trials"]), key=lambda t: t.number))
    keys = dict.fromkeys(key for t in trials for key in t.values)
    identity = book.get("identity")
    drawn = identity if isinstance(identity, dict) else {}
    start = _json(folder / START_FILE) if (folder / START_FILE).exists() else {}
    return Sweep(
        name=folder.resolve().name,
        folder=folder,
        config=config,
        knobs=tuple(_knob(key, drawn.get(key), trials) for key in keys),
        trials=trials,
        start=numbers(start) if isinstance(start, dict) else {},
        confirmation=read_confirmation(folder),
        confirming=read_confirming(folder),
        tested=_tested(folder / TEST_FOLDER),
        teacher_saved_s=_teacher_saved(folder / TEACHER_FILE),
    )


def numbers(plain: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers among the values."""
    return {key: float(value) for key, value in plain.items() if is_number(value) and math.isfinite(value)}


def flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings to dotted keys."""
    found: dict[str, Any] = {}
    for key, value in plain.items():
        inner = flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
        found.update(inner)
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise RunError(f"{path}: cannot be read: {in_one_line(e)}") from e


def _trial(plain: Mapping[str, Any], folder: Path, is_population: bool) -> Trial:
    trial_id = str(plain["trial_id"])
    run = folder / TRIALS_FOLDER / trial_id
    reports = read_reports(run)
    values = dict(plain.get("values") or {})
    scheduled = values if is_population else ()
    curve = tuple(Epoch(int(report["epoch"]), numbers(report), _used(report, scheduled)) for report in reports)
    hmean = plain.get("hmean")
    # The sweep may have been moved or copied since; its own folder then holds them.
    weights = next((p for p in (Path(str(plain.get("best") or "")), run / WEIGHTS) if p.is_file()), None)
    hours = plain.get("device_hours")
    return Trial(
        number=int(plain["number"]),
        trial_id=trial_id,
        values=values,
        epochs=int(plain.get("epochs") or 0),
        hmean=float(hmean) if is_number(hmean) and math.isfinite(hmean) else None,
        end=str(plain.get("end") or "running"),
        reason=str(plain.get("reason") or ""),
        seconds=float(plain.get("seconds") or 0.0),
        curve=curve,
        weights=weights,
        per_image=_per_image(weights.parent / PER_IMAGE) if weights is not None else (),
        device_hours=float(hours) if is_number(hours) else None,
        took_over=str(plain.get("took_over") or ""),
        **{key: float(plain[key]) for key in ("parameters", "latency_ms") if is_number(plain.get(key))},
    )


def _used(report: Mapping[str, Any], keys: Collection[str]) -> dict[str, Scalar]:
    """What the worker says that it trained with, of these keys."""
    used = json.loads(report[USED_CONFIG]) if keys and USED_CONFIG in report else {}
    return {key: used[key] for key in keys if key in used}


def _tested(folder: Path) -> tuple[tuple[str, float, int], ...]:
    found: dict[str, tuple[str, float, int]] = {}
    for path in sorted(folder.glob("*.json"), key=lambda p: p.stat().st_mtime):
        counts = _per_image(path)
        whose = _json(path).get("of") if counts else None
        if whose:
            matched, total = sum(c.matched for c in counts), sum(c.ground_truth + c.detected for c in counts)
            found[str(whose)] = (str(whose), 2 * matched / total if total else 0.0, len(counts))
    return tuple(found.values())


def _per_image(path: Path) -> tuple[ImageCounts, ...]:
    if not path.exists():
        return ()
    with contextlib.suppress(RunError, KeyError, TypeError, ValueError):
        read = _json(path)
        columns: Iterable[list[Any]] = (read[c] for c in ("index", "name", "matched", "ground_truth", "detected"))
        return tuple(ImageCounts(*row) for row in zip(*columns, strict=True))
    return ()


def read_confirmation(folder: Path) -> Confirmation | None:
    """What the confirmation of the sweep in `folder` found; None where there was none, or it has not ended.

    Raises: RunError when it cannot be read.
    """
    path = folder / CONFIRMATION_FILE
    if not path.exists():
        return None
    read = _json(path)
    try:
        found = read["arms"]
        seeds = [int(seed) for seed in read.get("seeds", ())]
        arms = tuple(_arm(arm, folder, seeds) for arm in found if arm["hmeans"])
        hours = float(read.get("device_hours") or 0.0)
        return Confirmation(arms, str(read["winner"]), hours, str(read.get("sentence") or "")) if arms else None
    except (KeyError, TypeError, ValueError) as e:
        raise RunError(f"{path}: expected the findings of a confirmation: {in_one_line(e)}") from e


def _arm(plain: Mapping[str, Any], folder: Path, seeds: Sequence[int]) -> Arm:
    differences = tuple(
        Difference(str(d["control"]), float(d["difference"]), float(d["low"]), float(d["high"]))
        for d in plain.get("over", ())
    )
    hmeans = tuple(float(hmean) for hmean in plain["hmeans"])
    weights = folder / str(plain.get("weights") or "")
    kept = [float(hmean) for hmean in plain.get("keep", ())]
    is_trained, shipped = plain.get("kind") != "start", int(plain.get("shipped") or 0)
    counts = weights.with_name(PER_IMAGE) if is_trained else folder / START_COUNTS
    return Arm(
        str(plain["name"]),
        hmeans,
        plain.get("kind") in ("default", "start"),
        differences,
        is_trained=is_trained,
        weights=weights if weights.is_file() else None,
        per_image=_per_image(counts) if weights.is_file() else (),
        keep=sum(kept) / len(kept) if kept else None,
        shipped=shipped,
        seed=seeds[shipped] if is_trained and shipped < len(seeds) else None,
    )


def _teacher_saved(path: Path) -> float | None:
    if not path.exists():
        return None
    saved = numbers(_json(path)).get("teacher.saved_s")
    return saved if saved else None


def _knob(key: str, written: object, trials: Iterable[Trial]) -> Knob:
    return knob(key, scale_from(written) if isinstance(written, str) else None, [t.values.get(key) for t in trials])


def scale_from(written: str) -> Scale | None:
    """What the books' words for a distribution stand for, e.g. `loguniform [0.1, 10]` or, in older ones,
    `LogUniform(0.1, 10.0)`; None for one that is not known here."""
    found = re.fullmatch(r"(\w+) ?[(\[](.*)[)\]](?:, points \d+)?", written.strip())
    if found is None:
        return None
    kind, inner = found[1].lower(), found[2]
    if kind == "choice":
        return Scale("choice", choices=tuple(_value(v) for v in inner.strip("(),").split(", ")))
    try:
        given = [float(v) for v in inner.split(",") if v.strip() not in ("", "None")]
    except ValueError:
        return None
    match kind, given:
        case "loguniform", (low, high):
            return Scale("log", low, high)
        case "uniform", (low, high):
            return Scale("linear", low, high)
        case "quniform", (low, high, step):
            return Scale("steps", low, high, step)
        case "randint", (low, high):
            return Scale("whole", low, high - 1)
        case _:
            return None


def _value(text: str) -> Scalar:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, bool | int | float | str) else text
