"""What stands in a storage folder, from its files alone: no cluster is asked, and none need be there."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ocr_ray.confirming import Confirming, read_confirming
from ocr_ray.driver import DriverNote, State, read_note, state_of
from ocr_ray.errors import RunError
from ocr_ray.report.contents import Confirmation
from ocr_ray.report.read import read_confirmation
from ocr_ray.reports import CONFIRM_FOLDER, CONFIRMATION_FILE, REPORTS_FILE, read_reports
from ocr_ray.search import requests
from ocr_ray.search.trials import TRIALS_FILE, TrialBook, TrialSummary, best_trial, trials_table
from ocr_ray.typed import read_yaml

CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class Standing:
    """A sweep or a single run as it stands."""

    folder: Path
    recipe: str
    note: DriverNote | None
    state: State | None
    """None: whoever made it left no note."""
    epochs: int
    """Of one whole run."""
    changed: float
    """When a file of it last changed, in seconds since 1970."""
    reached: int = 0
    """Finished epochs of a single run."""
    hmean: float | None = None
    """The best so far; after a confirmation that of the file which it gave as the answer."""
    trials: tuple[TrialSummary, ...] | None = None
    """None: it is a single run."""
    wanted: int = 0
    """So many trials the sweep is to have."""
    confirming: Confirming | None = None
    """The runs of a confirmation; None where none was begun."""
    confirmed: Confirmation | None = None
    """What a confirmation found; None where there was none, or it has not ended."""

    @property
    def ended(self) -> int:
        """Trials that have ended."""
        return sum(t.end != "running" for t in self.trials or ())

    def progress(self) -> str:
        """`5 of 16 trials` or `12 of 500 epochs`."""
        if self.trials is None:
            return f"{self.reached} of {self.epochs} epochs"
        return f"{self.ended} of {self.wanted} trials"


def standing(folder: Path) -> Standing:
    """Reads the sweep or run in `folder`. Raises: RunError when there is none; ConfigError for a broken config."""
    if not (folder / CONFIG_FILE).is_file():
        raise RunError(f"{folder}: no sweep and no run here")
    config = read_yaml(folder / CONFIG_FILE, "keys to values")
    note = read_note(folder)
    state = state_of(folder, note) if note is not None else None
    epochs, wanted = _number(config, "optim", "epochs"), _number(config, "sweep", "trials")
    files = [folder / name for name in (CONFIG_FILE, TRIALS_FILE, REPORTS_FILE, CONFIRMATION_FILE)]
    files += folder.glob(f"{CONFIRM_FOLDER}/*/{REPORTS_FILE}")
    changed = max(file.stat().st_mtime for file in files if file.exists())
    recipe = str(config.get("recipe", ""))
    if (folder / TRIALS_FILE).exists() or (note is not None and note.kind == "sweep"):
        book = TrialBook(folder, {})
        if (folder / TRIALS_FILE).exists():
            book.load()
        best = best_trial(book.trials)
        hmean = best.hmean if best is not None else None
        found = read_confirmation(folder)
        if found is not None and found.answer is not None:
            hmean = found.answer.hmeans[found.answer.shipped]
        return Standing(
            folder,
            recipe,
            note,
            state,
            epochs,
            changed,
            hmean=hmean,
            trials=tuple(book.trials),
            wanted=wanted,
            confirming=read_confirming(folder),
            confirmed=found,
        )
    reports = read_reports(folder)
    hmean = max((float(r["hmean.best"]) for r in reports), default=None)
    return Standing(folder, recipe, note, state, epochs, changed, len(reports), hmean)


def find(name: str, storage: Path) -> Path:
    """The folder of the sweep or run `name` in `storage`; `name` may be its path. Raises: RunError."""
    for folder in (storage / name, Path(name)):
        if (folder / CONFIG_FILE).is_file():
            return folder
    there = ", ".join(s.folder.name for s in everything(storage)[:5])
    raise RunError(f"{storage / name}: no sweep and no run here" + (f"; there are: {there}" if there else ""))


def everything(storage: Path) -> list[Standing]:
    """The sweeps and runs in `storage`, the newest first."""
    folders = [config.parent for config in storage.glob(f"*/{CONFIG_FILE}")]
    return sorted(map(standing, folders), key=lambda s: -s.changed)


def overview(storage: Path) -> RenderableType:
    """A row for each sweep and run in `storage`, the newest first. Raises: RunError when there is none."""
    found = everything(storage)
    if not found:
        raise RunError(f"{storage}: no sweeps and no runs here; --storage names another folder (ray.storage)")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("name", "recipe", "how far", "best hmean", "state", "last change"):
        table.add_column(column, justify="right" if column in ("how far", "best hmean") else "left", no_wrap=True)
    for s in found:
        hmean = "" if s.hmean is None else f"{s.hmean:.4f}"
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(s.changed))
        again = s.confirming
        more = f", {len(again.runs) - len(again.open)} of {len(again.runs)} again" if again and again.open else ""
        table.add_row(s.folder.name, s.recipe, s.progress() + more, hmean, s.state or "unknown", when)
    return table


def details(s: Standing) -> RenderableType:
    """All that is known of one sweep or run: its trials, the best so far, how far it is, and who runs it."""
    lines = [f"{s.folder.name}: {s.recipe}, {s.progress()}" + _share(s), *_driver(s)]
    if s.trials is None:
        if s.hmean is not None:
            lines.insert(1, f"best so far: hmean {s.hmean:.4f}  {s.folder / 'best' / 'student.safetensors'}")
        return Text("\n".join(lines))
    best = best_trial(list(s.trials))
    if best is not None and best.hmean is not None:
        values = " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in best.values.items())
        if s.confirmed is not None:  # its weights are not the answer's
            line = f"best trial, trained once: hmean {best.hmean:.4f} in trial {best.number} ({values})"
        else:
            line = f"best so far: hmean {best.hmean:.4f} in trial {best.number} ({values})  {best.best}"
        lines[1:1] = [line, *_confirmation(s)]
    asked = {t.number for t in s.trials if requests.asked_to_stop(s.folder, t.number) is not None}
    return Group(trials_table(list(s.trials), alive=s.state == "runs", asked=asked), Text("\n".join(["", *lines])))


def stop(s: Standing, trial: int | None) -> str:
    """Asks the driver of a sweep to end one trial, or the whole sweep. Returns: what then happens, in a line.

    Raises: RunError when there is no such trial, it has ended, or nobody runs the sweep that is to be stopped.
    """
    name = s.folder.name
    if s.trials is None:
        raise RunError(f"{name}: is a single run, not a sweep: end it by Ctrl-C or SIGTERM where it runs")
    if trial is None:
        if s.state != "runs":
            raise RunError(f"{name}: does not run, its driver {_PAST[s.state]}")
        requests.ask_to_stop(s.folder)
        return f"{name}: will stop as soon as the epochs under way are finished"
    known = {t.number: t for t in s.trials}
    if trial not in known:
        raise RunError(f"{name}: has no trial {trial}, expected one of {', '.join(map(str, known)) or 'none so far'}")
    if known[trial].end != "running":
        raise RunError(f"{name}: trial {trial} has ended already: {known[trial].end}")
    requests.ask_to_stop(s.folder, trial)
    when = "at its next report" if s.state == "runs" else "when the sweep is resumed"
    return f"{name}: trial {trial} will be stopped {when}"


_PAST: dict[State | None, str] = {
    "finished": "has finished",
    "stopped": "was stopped",
    "failed": "failed",
    "killed": "was killed",
    "runs": "runs",
    None: "is unknown",
}


def _driver(s: Standing) -> list[str]:
    if s.note is None:
        return []
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(s.note.began))
    if s.state == "runs":
        return [f"runs since {since}: process {s.note.pid} on {s.note.host}"]
    went = {"failed": f"failed: {s.note.reason}", "killed": f"its driver was killed (process {s.note.pid})"}
    line = went.get(s.state or "", f"{_PAST[s.state].removeprefix('has ')}")
    return [line] if s.state == "finished" else [line, f"to go on with it: {s.note.resume}"]


def _confirmation(s: Standing) -> list[str]:
    """How far the confirmation is, what it found, and which file is the answer."""
    lines, found = [], s.confirmed
    if s.confirming is not None and s.confirming.runs and (s.confirming.open or found is None):
        lines.append(f"confirmation: {s.confirming.progress()}")
    if found is not None and found.answer is not None:
        lines.append(f"{'before that' if lines else 'confirmation'}: {found.sentence}")
        answer = found.answer
        where = answer.weights or "(its weights are not there any more)"
        whose = answer.name + (f", seed {answer.seed}" if answer.seed is not None else "")
        lines.append(f"answer: hmean {answer.hmeans[answer.shipped]:.4f} ({whose})  {where}")
    return lines


def _share(s: Standing) -> str:
    """How much of the sweep's work is done, where a trial is `epochs` long."""
    if not s.trials or not s.wanted or not s.epochs:
        return ""
    running = [t for t in s.trials if t.end == "running"]
    under_way = ", ".join(f"trial {t.number} at epoch {t.epochs} of {s.epochs}" for t in running)
    return f" ended; {under_way}" if running else " ended"


def _number(config: dict[str, Any], group: str, key: str) -> int:
    value = (config.get(group) or {}).get(key)
    return int(value) if isinstance(value, int | float) else 0
