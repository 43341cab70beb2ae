"""What a sweep came to, and how it is known again."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from ocr_ray.config import RecipeConfig, load_config
from ocr_ray.confirm.verdict import Confirmation
from ocr_ray.files import write_text
from ocr_ray.held_out import TestScores
from ocr_ray.search.history import ranks_of
from ocr_ray.search.ranks import Ranks
from ocr_ray.search.stopping import stopping
from ocr_ray.search.trials import TrialBook, TrialSummary, pareto_set, trials_table
from ocr_ray.teaching.desk import TeachingStats
from ocr_ray.train import CONFIG_FILE
from ocr_ray.unsent import UNSENT_FILE

RESULT_FILE = "result.json"
"""In a sweep's folder once it has ended."""


@dataclass(frozen=True)
class SweepResult:
    """A finished sweep. `best` is the weights file of the winner, its metadata beside it: of the best trial, or of what
    a confirmation found."""

    name: str
    folder: Path
    hmean: float
    """Of that file on val."""
    best: Path
    best_trial: TrialSummary
    trials: tuple[TrialSummary, ...]
    ui_line: str
    """What to type, or to open, to look at the runs in MLflow."""
    seconds: float
    taught: TeachingStats | None = None
    """What the shared teacher's answers took and saved; None where each trial had a teacher of its own, or none."""
    ranks: Ranks = field(default_factory=Ranks)
    """Whether early hmeans told how trials would end."""
    confirmation: Confirmation | None = None
    """None without `sweep.confirm`."""
    tested: TestScores | None = None
    """None without `data.test`."""
    pareto: tuple[TrialSummary, ...] | None = None
    """With `sweep.against`: the trials of which none has both a higher hmean and a lower cost, the cheapest first."""

    def table(self) -> Table:
        """A row for each trial, for the terminal."""
        return trials_table(list(self.trials), self.pareto)


def finished_sweep(folder: Path, wanted: RecipeConfig | None = None) -> SweepResult | None:
    """What `sweep` gave for the sweep in `folder`; None where it has not come to its end, its weights are gone, or it
    had a confirmation or a test, or is wanted with one: `sweep` with `resume` puts that together from what lies there.
    """
    written = folder / RESULT_FILE
    if not written.exists() or (folder / UNSENT_FILE).exists():  # a resume tells MLflow what it has not heard
        return None
    cfg = load_config(folder / CONFIG_FILE)
    plain = json.loads(written.read_text())
    book = TrialBook(folder, {})
    book.load()
    best = book.of(plain["best_trial_id"])
    if any(c.sweep.confirm or c.data.test for c in (cfg, wanted or cfg)):
        return None
    if best is None or not Path(plain["best"]).exists():
        return None
    rule = stopping(cfg.sweep, cfg.optim.epochs, cfg.eval.every_epochs)
    return SweepResult(
        folder.name,
        folder,
        plain["hmean"],
        Path(plain["best"]),
        best,
        tuple(book.trials),
        plain["ui_line"],
        plain["seconds"],
        TeachingStats(**plain["taught"]) if plain["taught"] else None,
        ranks_of(folder, book, rule.rungs),
        pareto=tuple(pareto_set(book.trials, cfg.sweep.against)) if cfg.sweep.against else None,
    )


def write_result(result: SweepResult) -> None:
    """What the trials' book does not hold, for `finished_sweep`."""
    plain = {
        "hmean": result.hmean,
        "best": str(result.best),
        "best_trial_id": result.best_trial.trial_id,
        "ui_line": result.ui_line,
        "seconds": result.seconds,
        "taught": dataclasses.asdict(result.taught) if result.taught else None,
    }
    write_text(result.folder / RESULT_FILE, json.dumps(plain, indent=1))
