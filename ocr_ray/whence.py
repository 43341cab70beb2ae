"""Where a file of weights comes from: what it says itself, and the run in MLflow that made it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from ocr_ray.errors import RunError, WeightsError
from ocr_ray.mlflow_store import store_uri
from ocr_ray.model_card import ModelCard, Origin, read_card
from ocr_ray.tracked import TrackedRuns
from ocr_ray.tracking import LEDGER_FILE

if TYPE_CHECKING:
    from mlflow.entities import Run

LEVELS = 5
"""Of folders above a file, in which its run's ledger is looked for: `SWEEP/train/TRIAL/best/student.safetensors`."""
SAME = 1e-9
REACHED = "hmean.best"  # as runs report it


@dataclass(frozen=True)
class FoundRun:
    """A run of MLflow."""

    uri: str
    run_id: str
    name: str
    status: str
    hmean: float | None
    parent: str | None
    """Id of its sweep."""


@dataclass(frozen=True)
class Whence:
    """A file's card, and its run if it was found."""

    path: Path
    card: ModelCard
    run: FoundRun | None
    why_not: str = ""
    """In a line, where no run was found."""

    def table(self) -> Table:
        """A row for each thing that is known, for the terminal."""
        table = Table(title=str(self.path), title_justify="left", box=None, pad_edge=False, show_header=False)
        table.add_column()
        table.add_column(overflow="fold")
        origin, card = self.card.origin, self.card
        before = " (before these settings were chosen)" if origin.settings else ""
        known = {
            "hmean on val": None if origin.hmean is None else f"{origin.hmean:.4f}{before}",
            "net": f"{type(card.detector.backbone).__name__}, {type(card.detector.neck).__name__}",
            "recipe": origin.recipe,
            "run": origin.run,
            "which": origin.which,
            "epoch": origin.epoch,
            "config digest": origin.config_digest,
            "data digest": origin.data_digest,
            "read from": origin.source,
            "random parts": ", ".join(origin.new_parts) or None,
            "written by": f"ocr_ray {origin.version}",
            "normalised by": f"mean {list(card.normalize.mean)}, std {list(card.normalize.std)}",
            "resized to": str(card.resize),
            "cut by": f"thresh {card.postprocess.thresh}, box_thresh {card.postprocess.box_thresh}, "
            f"unclip_ratio {card.postprocess.unclip_ratio}, "
            f"dilation {'on' if card.postprocess.use_dilation else 'off'}",
            "chosen": origin.settings,
            "quantised": origin.quantised,
        }
        if (run := self.run) is not None:
            hmean = "" if run.hmean is None else f", hmean {run.hmean:.4f}"
            sweep = "" if run.parent is None else f", a trial of {run.parent}"
            known["in MLflow"] = f"{run.run_id} ({run.name}, {run.status.lower()}{hmean}{sweep}) at {run.uri}"
        else:
            known["in MLflow"] = self.why_not
        for what, value in known.items():
            if value is not None:
                table.add_row(what, str(value))
        return table


def whence(path: Path, tracking: str | None = None, storage: Path = Path("runs")) -> Whence:
    """What the file says, and its run: by the id it holds, by the folder it lies in, or by its config's digest.

    Args: tracking names a database or server; absent: that of its run's folder, `MLFLOW_TRACKING_URI`, or the database
        in `storage`.
    Raises: WeightsError when the file has no card.
    """
    card = read_card(path)
    near = _ledger_near(path, card.origin)
    uri = tracking or (near[0] if near else store_uri(None, storage))
    try:
        runs = TrackedRuns(uri)
        run_id = card.origin.run_id or (near[1] if near else None)
        run = runs.run(run_id) if run_id else _by_digest(runs, card.origin)
    except RunError as e:
        return Whence(path, card, None, f"not found: {e}")
    if run is None:
        return Whence(path, card, None, f"no run of this config in {uri}")
    tags = run.data.tags
    return Whence(
        path,
        card,
        FoundRun(
            uri,
            run.info.run_id,
            run.info.run_name,
            run.info.status,
            run.data.metrics.get(REACHED),
            tags.get("mlflow.parentRunId"),
        ),
    )


def known_origin(path: Path) -> Origin | None:
    """What a file of weights says of its origin, with MLflow's id of its run where it lies in that run's folder; None
    for a file that does not say it."""
    try:
        return origin_with_run(path, read_card(path).origin)
    except WeightsError:
        return None


def origin_with_run(path: Path, origin: Origin) -> Origin:
    """The same with MLflow's id of its run, where the file lies in that run's folder."""
    near = _ledger_near(path, origin)
    return origin if origin.run_id or near is None else dataclasses.replace(origin, run_id=near[1])


def _ledger_near(path: Path, origin: Origin) -> tuple[str, str] | None:
    """Store and id of the run in whose folder the file lies."""
    for folder in path.resolve().parents[:LEVELS]:
        ledger = folder / LEDGER_FILE
        if not ledger.exists():
            continue
        read = json.loads(ledger.read_text(encoding="utf-8"))
        below = path.resolve().relative_to(folder).parts
        for key in (*below, origin.run, folder.name):
            if key in read["runs"]:
                return str(read["uri"]), str(read["runs"][key])
    return None


def _by_digest(runs: TrackedRuns, origin: Origin) -> "Run | None":
    """Of the runs with its config the one that reached its hmean, else the newest."""
    if origin.config_digest is None:
        return None
    found = runs.with_tag("config_digest", origin.config_digest)
    for run in found:
        reached = run.data.metrics.get(REACHED)
        if origin.hmean is not None and reached is not None and abs(reached - origin.hmean) < SAME:
            return run
    return found[0] if found else None
