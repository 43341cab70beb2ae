"""What a sweep hands out: its best trial, or what a confirmation found; and what that reaches on the test set.

A trial that won a search was lucky to some part; the same config trained anew was not chosen for its luck. Each seed is
used by every config, so that their runs see the same batches and differ by their knobs alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ocr_ray.config import RecipeConfig
from ocr_ray.confirm.candidates import (
    SEED,
    Candidate,
    candidates_of,
    default_trial,
    fresh_seeds,
    own_values,
    without_seed,
)
from ocr_ray.confirm.room import BudgetLeft
from ocr_ray.confirm.runs import ConfirmRun, ConfirmRuns, confirmed_so_far
from ocr_ray.confirm.verdict import DEFAULT_NAME, START_NAME, Arm, Confirmation, judge
from ocr_ray.confirming import forget_asked
from ocr_ray.engine.loop import KEPT
from ocr_ray.engine.per_image import PER_IMAGE_FILE, ImageCounts, aligned, read_per_image
from ocr_ray.errors import RunError
from ocr_ray.evidence import Counts
from ocr_ray.files import write_text
from ocr_ray.held_out import Held, TestScores, evaluate_on_test, untouched_start
from ocr_ray.progress import LiveFeed
from ocr_ray.reports import CONFIRM_FOLDER, CONFIRMATION_FILE
from ocr_ray.search.notes import device_hours_of
from ocr_ray.search.trials import TrialSummary
from ocr_ray.spaces import SearchSpace
from ocr_ray.start import KEPT_START, start_figures
from ocr_ray.stopwatch import DEVICE_HOURS, HOUR_S, Stopwatch
from ocr_ray.tracking import TrackedRun, Tracker
from ocr_ray.typed import with_values

CONFIRM_HOURS = "confirm.device_hours"
"""Metric of a sweep: the part of its device-hours that its confirmation took."""


@dataclass(frozen=True, eq=False)
class Decision:
    """A file of weights, and why it is this one."""

    hmean: float
    """Of the file on val."""
    weights: Path
    confirmation: Confirmation | None
    """None without `sweep.confirm`, or where the budget has no room for it."""
    tested: TestScores | None
    """None without `data.test`."""


def decide(
    cfg: RecipeConfig,
    space: SearchSpace,
    folder: Path,
    trials: Sequence[TrialSummary],
    best: TrialSummary,
    live: LiveFeed,
    tracker: Tracker,
    parent: TrackedRun,
    stopwatch: Stopwatch,
    left: BudgetLeft,
) -> Decision:
    """What follows the search, recorded in the sweep's run.

    Args: cfg is the sweep's, folder its own, best its best trial, which has weights; stopwatch has the sweep's wall
        time, left what its budget still has.
    Raises: RunError when a confirmation is asked for and no run of it came through.
    """
    assert best.hmean is not None
    start = untouched_start(cfg, folder, live) if cfg.sweep.confirm or cfg.data.test else None
    hmean, weights, confirmation = best.hmean, Path(best.best), None
    files: dict[Held, tuple[str, Path]] = {"winner": (f"trial {best.number}", weights)}
    default = default_trial(trials, space, cfg)
    if default is not None and default is not best:
        files["default"] = DEFAULT_NAME, Path(default.best)
    if start is not None:
        files["start"] = START_NAME, start[0]
    if cfg.sweep.confirm:
        confirmation = confirm(cfg, space, folder, trials, start, live, tracker, parent, stopwatch, left)
    if confirmation is None:
        _leave_out(folder, best, live, parent)
    else:
        hours = confirmed_so_far(folder, cfg).device_seconds / HOUR_S
        write_text(folder / CONFIRMATION_FILE, json.dumps(confirmation.plain(folder, hours), indent=1))
        parent.artifact(folder / CONFIRMATION_FILE)
        spent = {DEVICE_HOURS: device_hours_of(list(trials), cfg.ray.num_workers) + hours, CONFIRM_HOURS: hours}
        parent.finals(spent, len(trials) + 1)  # after the last trial's
        parent.tags(confirmation.tags())
        parent.finals(confirmation.metrics())
        live.say(f"confirm: {confirmation.sentence}")
        winner, files = confirmation.winner, confirmation.files()
        hmean, weights = winner.hmeans[winner.shipped], winner.file
    tested = None
    if cfg.data.test:
        tested = evaluate_on_test(cfg, folder, files, live)
        parent.finals(tested.metrics())
        live.say(tested.one_line())
    return Decision(hmean, weights, confirmation, tested)


def _leave_out(folder: Path, best: TrialSummary, live: LiveFeed, parent: TrackedRun) -> None:
    """What an earlier call found holds no more where this one hands out its best trial: nothing may still say it."""
    forget_asked(folder)
    if (folder / CONFIRMATION_FILE).exists():
        (folder / CONFIRMATION_FILE).unlink()
        said = {"winner": f"trial {best.number}", "winner.kind": "trial", "confirm.answer": "", "confirm.seeds": ""}
        parent.tags(said)
        live.say("note: the answer is the best trial; what an earlier confirmation found is left out")


def confirm(
    cfg: RecipeConfig,
    space: SearchSpace,
    folder: Path,
    trials: Sequence[TrialSummary],
    start: tuple[Path, Sequence[ImageCounts]] | None,
    live: LiveFeed,
    tracker: Tracker,
    parent: TrackedRun,
    stopwatch: Stopwatch,
    left: BudgetLeft,
) -> Confirmation | None:
    """Trains the best `sweep.confirm` trials and the default config with `sweep.seeds` fresh seeds each, to their last
    epoch, and holds them against each other and against the start.

    As many of them as the budget has left room for; where it has none, none is trained, and that is said.

    Args: cfg is the sweep's, folder its own; start are the untouched weights as a file and what they gave on val;
        stopwatch and left as for `decide`.
    Raises: RunError when no run came through; KeyboardInterrupt when people ended it.
    """
    own = own_values(space, cfg)
    candidates = candidates_of(trials, own, cfg.sweep.confirm)
    if len(candidates) < cfg.sweep.confirm:
        live.say(f"note: sweep.confirm={cfg.sweep.confirm}, and {len(candidates)} other trials have weights to show")
    default = Candidate("default", "default", DEFAULT_NAME, without_seed(own))
    seeds = fresh_seeds(cfg, trials)

    def runs_of(count: int) -> list[ConfirmRun]:
        return [
            ConfirmRun(
                candidate,
                seed,
                with_values(cfg, {**candidate.values, SEED: seed}, "confirmation"),
                f"{folder.name}/{CONFIRM_FOLDER}/{candidate.key}-seed-{seed}",
            )
            for seed in seeds
            for candidate in (*candidates[:count], default)
        ]

    count = left.candidates(len(candidates), runs_of)
    cut = "" if count == len(candidates) else left.told(runs_of(len(candidates)), count, len(candidates))
    if cut:
        live.say(f"confirm: {cut}")
    parent.tags({"confirm.cut": cut})
    if count is None:
        return None
    everyone, runs = [*candidates[:count], default], runs_of(count)
    training = ConfirmRuns(cfg, space, folder, live, tracker, parent, stopwatch, left.estimate())
    failed = training.train(runs, f"confirm {folder.name}")
    kept = start_figures(folder).get(KEPT_START)
    return judge(arms_of(everyone, runs, failed, folder.parent, start, kept), seeds)


def arms_of(
    candidates: Sequence[Candidate],
    runs: Sequence[ConfirmRun],
    failed: Mapping[str, str],
    storage: Path,
    start: tuple[Path, Sequence[ImageCounts]] | None,
    start_kept: float | None = None,
) -> list[Arm]:
    """What the runs on disk gave, for `judge`. A candidate of which a run is in `failed` has no counts; start_kept is
    what the start reaches on `data.keep`."""
    of: dict[str, list[ConfirmRun]] = {c.key: [run for run in runs if run.candidate is c] for c in candidates}
    reasons = {
        c.key: next((f"seed {run.seed}: {failed[run.folder]}" for run in of[c.key] if run.folder in failed), "")
        for c in candidates
    }
    whole = [run for c in candidates if not reasons[c.key] for run in of[c.key]]
    reports = {run.folder: run.last_report(storage) for run in whole}
    files = {folder: Path(report["best_path"]) for folder, report in reports.items() if report is not None}
    counted = [read_per_image(files[run.folder].with_name(PER_IMAGE_FILE)) for run in whole]
    together = aligned([*counted, *([start[1]] if start else [])])
    if together and not len(together[0]):
        raise RunError("confirmation: no picture of val could be read by all runs")
    counts = dict(zip([run.folder for run in whole], together, strict=False))
    arms = []
    for c in candidates:
        its = [] if reasons[c.key] else [run.folder for run in of[c.key]]
        keep = [report[KEPT] for f in its if (report := reports[f]) and KEPT in report]
        arms.append(
            Arm(
                c.kind,
                c.name,
                _stacked([counts[folder] for folder in its]),
                tuple(files[folder] for folder in its),
                tuple(keep),
                reasons[c.key],
            )
        )
    if start is not None:
        its_keep = () if start_kept is None else (start_kept,)
        arms.append(Arm("start", START_NAME, _stacked(together[-1:]), (start[0],), its_keep))
    return arms


def _stacked(runs: Sequence[Counts]) -> Counts:
    """`(S, N, 3)` of S runs; of no runs, no pictures either."""
    return np.stack(runs) if runs else np.zeros((0, 0, 3), np.int64)
