"""What the trials of a sweep have reported by epoch, read from their folders: they outlive the driver."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ocr_ray.reports import read_reports
from ocr_ray.search.ranks import Ranks, hmean_by_epoch, rank_rungs
from ocr_ray.search.stopping import ended_by_rule
from ocr_ray.search.trial import OBJECTIVE, train_folder
from ocr_ray.search.trials import TrialBook


def reports_of(folder: Path, trial_id: str) -> list[dict[str, Any]]:
    """The reports of a trial of the sweep in `folder`, one for each epoch."""
    return read_reports(folder.parent / train_folder(folder.name, trial_id))


def past_reports(folder: Path, book: TrialBook) -> Callable[[str], Sequence[dict[str, Any]]]:
    """By a trial's id, what Tune's scheduler has heard of it; of a failed one the failure as well."""

    def past(trial_id: str) -> list[dict[str, Any]]:
        known = book.of(trial_id)
        if known is None:
            return []
        # A worker may have finished epochs after the driver was killed: of those the scheduler is still to decide.
        reports = [report for report in reports_of(folder, trial_id) if report["epoch"] <= known.epochs]
        if known.end == "failed":
            reports.append({"epoch": 0, OBJECTIVE: math.nan})
        return reports

    return past


def ranks_of(folder: Path, book: TrialBook, rungs: Sequence[int]) -> Ranks:
    """How far the finished trials of the sweep in `folder` stood, at each of `rungs`, in the order of their end."""
    finished = [hmean_by_epoch(reports_of(folder, t.trial_id)) for t in book.trials if t.end == "finished"]
    stopped = sum(ended_by_rule(t.end, t.reason) for t in book.trials)
    return rank_rungs([history for history in finished if history], rungs, stopped)
