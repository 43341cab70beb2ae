"""How far the confirmation of a sweep is, as its folder tells: for those who look at it from outside."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocr_ray.files import write_text
from ocr_ray.reports import CONFIRM_FOLDER, read_reports
from ocr_ray.stopwatch import SPENT_FILE, Stopwatch

ASKED_FILE = "runs.json"
"""In the folder of a confirmation's runs: which of them were asked for last."""


@dataclass(frozen=True)
class AskedRun:
    """One run that a confirmation is to have."""

    folder: str
    """Its own, among those of the confirmation."""
    name: str
    """As people see it, e.g. `trial 3, seed 1025`."""
    epochs: int
    """That it is to have."""
    reason: str = ""
    """Why it failed; empty where it has not."""


@dataclass(frozen=True)
class Confirming:
    """The runs of a confirmation, and what they have come to."""

    runs: tuple[AskedRun, ...]
    """Those that were asked for last; none where that is not known."""
    reached: Mapping[str, int]
    """Epochs by folder, of those that have finished any."""
    seconds: float
    """That the runs took, workers' starts included, over all attempts; also those of an earlier confirmation."""

    @property
    def open(self) -> tuple[AskedRun, ...]:
        """Those that have neither come to their last epoch nor failed."""
        return tuple(run for run in self.runs if not run.reason and self.reached.get(run.folder, 0) < run.epochs)

    def progress(self) -> str:
        """`3 of 8 runs ended; default config, seed 1025 at epoch 4 of 6`."""
        failed = sum(bool(run.reason) for run in self.runs)
        under_way = ", ".join(
            f"{run.name} at epoch {self.reached[run.folder]} of {run.epochs}"
            for run in self.open
            if run.folder in self.reached
        )
        ended = f"{len(self.runs) - len(self.open)} of {len(self.runs)} runs ended"
        return ended + (f", {failed} of them failed" if failed else "") + (f"; {under_way}" if under_way else "")


def write_asked(folder: Path, runs: Sequence[AskedRun]) -> None:
    """Writes down which runs the confirmation of the sweep in `folder` is to have, and which of them failed."""
    plain = {"runs": [dataclasses.asdict(run) for run in runs]}
    write_text(folder / CONFIRM_FOLDER / ASKED_FILE, json.dumps(plain, indent=1))


def forget_asked(folder: Path) -> None:
    """No confirmation of the sweep in `folder` is wanted any more; what was trained stays."""
    (folder / CONFIRM_FOLDER / ASKED_FILE).unlink(missing_ok=True)


def read_confirming(folder: Path) -> Confirming | None:
    """Of the sweep in `folder`; None where no run of a confirmation was ever begun."""
    place = folder / CONFIRM_FOLDER
    if not place.is_dir():
        return None
    asked = json.loads((place / ASKED_FILE).read_text())["runs"] if (place / ASKED_FILE).exists() else []
    runs = tuple(AskedRun(**run) for run in asked)
    reports = {run.folder: read_reports(place / run.folder) for run in runs}
    reached = {name: int(its[-1]["epoch"]) for name, its in reports.items() if its}
    spent = [Stopwatch(path.parent, clock=lambda: 0.0).seconds for path in place.glob(f"*/{SPENT_FILE}")]
    return Confirming(runs, reached, sum(spent))
