"""Tune's callback in the driver: each trial's news to its summary, to its MLflow run and to the terminal."""

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from ocr_ray.donors import INHERITED, Donor
from ocr_ray.engine.loop import KEPT
from ocr_ray.progress import LiveFeed, Phase, ProgressEvent
from ocr_ray.reports import USED_CONFIG, read_reports
from ocr_ray.search import requests
from ocr_ray.search.notes import TrialNotes
from ocr_ray.search.population import DonorKeeper
from ocr_ray.search.reserve import Reserve
from ocr_ray.search.steering import Steering
from ocr_ray.search.student import LATENCY, PARAMETERS
from ocr_ray.search.trial import FAILED, OBJECTIVE, plain_value, train_folder
from ocr_ray.search.trials import End, TrialBook, TrialSummary, best_trial
from ocr_ray.spaces import SearchSpace
from ocr_ray.stopwatch import DEVICE_HOURS
from ocr_ray.teaching.sharing import Teaching
from ocr_ray.tracking import TOOK_OVER, TrackedRun, Tracker
from ocr_ray.train import spoken
from ocr_ray.worker import DIAGNOSIS

TUNES_OWN = frozenset(
    (
        *("config", "date", "done", "experiment_tag", "hostname", "node_ip", "pid", "timestamp", "trial_id"),
        *("iterations_since_restore", "time_since_restore", "time_this_iter_s", "time_total_s", "training_iteration"),
        *("checkpoint_dir_name", "checkpoint_path", "should_checkpoint"),
    )
)
"""What Tune adds to a report; none of it is about the training."""


class SweepWatch(tune.Callback):
    """Keeps the books of a sweep while Tune runs it. Tune calls it in the driver's main thread.

    Args: folder is the sweep's; notes are written beside what a trial's worker reports.
    """

    def __init__(
        self,
        book: TrialBook,
        space: SearchSpace,
        tracker: Tracker,
        parent: TrackedRun,
        live: LiveFeed,
        folder: Path,
        notes: TrialNotes,
        reserve: Reserve,
        teaching: Teaching | None,
        steering: Steering,
        donors: DonorKeeper,
    ) -> None:
        self._book, self._space, self._tracker, self._parent, self._live = book, space, tracker, parent, live
        self._folder, self._notes = folder, notes
        self._reserve, self._teaching, self._steering, self._donors = reserve, teaching, steering, donors
        self._runs: dict[str, TrackedRun] = {}
        self._began: dict[str, tuple[float, float]] = {}
        self._epochs: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._diagnoses: dict[str, str] = {}
        self._told: set[str] = set()
        self._teacher_told = False

    def setup(
        self, stop: Any = None, num_samples: int | None = None, total_num_samples: int | None = None, **info: Any
    ) -> None:
        """As Tune calls it, just after it has taken SIGINT for itself."""
        self._steering.heed_signals()

    def name_of(self, trial_id: str) -> str:
        """`trial 3`, as people see it."""
        trial = self._book.of(trial_id)
        return f"trial {trial.number}" if trial else trial_id

    def diagnosis_of(self, trial_id: str) -> str:
        """Why the trial's last evaluation gave hmean 0; empty where it did not, or where none was seen."""
        return self._diagnoses.get(trial_id, "")

    def device_hours(self) -> float:
        """Of all trials, those that run included up to now."""
        running = [t.trial_id for t in self._book.trials if t.end == "running" and t.trial_id in self._began]
        others = [t for t in self._book.trials if t.trial_id not in running]
        return self._notes.device_hours([*others, *map(self._timed, running)])

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial starts, or starts again after a resume."""
        for proposed in trials:  # they start in any order
            if proposed.trial_id not in self._numbers:
                known = self._book.of(proposed.trial_id)
                number = known.number if known else max([self._book.next_number() - 1, *self._numbers.values()]) + 1
                self._numbers[proposed.trial_id] = number
        drawn = self._space.settled({key: plain_value(trial.config[key]) for key in self._space.varied})
        self._steering.trial_starts(trial.trial_id)
        summary = self._book.of(trial.trial_id)
        if summary is None or not self._steering.had_ended(trial.trial_id):
            summary = self._book.start(trial.trial_id, self._numbers[trial.trial_id], drawn)
        self._began[trial.trial_id] = (time.monotonic(), summary.seconds)
        name = self.name_of(trial.trial_id)
        if trial.trial_id not in self._runs:
            self._runs[trial.trial_id] = self._open(summary, drawn)
        self._live.put(ProgressEvent(name, "starting"))
        if self._teaching is not None:
            self._teaching.started(trial.trial_id)
        self._reserve.trial_starts(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """A report of the trial's worker, or why it failed."""
        summary = self._timed(trial.trial_id)
        if FAILED in result:
            self._book.change(dataclasses.replace(summary, end="failed", reason=result[FAILED]))
            return
        self._steering.trial_reported(trial.trial_id)
        best = Path(str(result["best_path"]))
        self._diagnoses[trial.trial_id] = str(result[DIAGNOSIS])
        for line in spoken({**result, DIAGNOSIS: ""}, self._told):
            self._live.say(line)  # the same pictures in all trials, so once for all
        report = {key: value for key, value in result.items() if key not in TUNES_OWN}
        used = json.loads(report[USED_CONFIG])
        self._epochs[trial.trial_id] = int(used["optim.epochs"])
        summary = dataclasses.replace(
            summary,
            values={key: used[key] for key in self._space.varied},
            epochs=int(result["epoch"]),
            hmean=float(result[OBJECTIVE]),
            best=str(best) if best.exists() else "",  # not before the first evaluation
            keep=result.get(KEPT),
            parameters=int(result[PARAMETERS]),
            latency_ms=result.get(LATENCY),
        )
        if INHERITED in result:
            summary = self._heir(summary, Donor.at(Path(result[INHERITED])))
        self._donors.heard(trial, trials, result)
        # With its last report or never: a driver that is killed in between would later go on with it.
        self._book.change(self._ended(summary) if result.get("done") else summary)
        self._runs[trial.trial_id].report(self._notes.with_cost(report, summary))
        self._tell_of_teacher()

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial came to its end, or the scheduler ended it."""
        self._close(self._ended(self._timed(trial.trial_id)))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial's own process was lost."""
        text = str(trial.get_error() or "its process was lost").strip().splitlines()
        self._close(dataclasses.replace(self._timed(trial.trial_id), end="failed", reason=text[-1]))

    def _tell_of_teacher(self) -> None:
        """Says once, and while something can still be done about it, that answers cannot be stored any more."""
        if self._teaching is None:
            return
        reason = self._teaching.trouble()
        if reason and not self._teacher_told:
            self._teacher_told = True
            self._live.say(f"teacher: trials run it themselves where its answers cannot be stored: {reason}")

    def close_lost(self) -> None:
        """Ends trials of an earlier attempt that Tune's own record did not reach."""
        for summary in self._book.trials:
            if summary.end == "running" and summary.trial_id not in self._runs:
                lost = "was lost when the sweep was interrupted"
                self._book.change(dataclasses.replace(summary, end="failed", reason=lost))
                self._tracker.run(summary.trial_id, f"trial {summary.number}", self._parent).end("KILLED")

    def close_unwritten(self) -> None:
        """Writes down the ends of trials that MLflow has not heard of, since the driver was killed just then."""
        for summary in self._book.trials:
            if summary.end != "running":
                self._write_end(self._open(summary, summary.values, unless_ended=True), summary)

    def _open(self, summary: TrialSummary, values: Mapping[str, Any], unless_ended: bool = False) -> TrackedRun:
        """The trial's MLflow run, with the epochs that its worker finished while no driver listened."""
        run = self._notes.start(self._tracker, self._parent, summary, values, unless_ended)
        for report in read_reports(self._folder.parent / train_folder(self._folder.name, summary.trial_id)):
            run.report(self._notes.with_cost(report, None))  # what is written stays so
        return run

    def _heir(self, summary: TrialSummary, donor: Donor) -> TrialSummary:
        """With whom it went on from; the first time that is heard, it is told."""
        words = f"{self.name_of(donor.trial_id)} at epoch {donor.epoch}"
        if words != summary.took_over:
            values = ", ".join(f"{key}={value}" for key, value in summary.values.items())
            self._live.say(f"{self.name_of(summary.trial_id)}: went on from {words} with {values}")
            self._runs[summary.trial_id].tags({TOOK_OVER: words})
            self._runs[summary.trial_id].back_to(donor.epoch)
        return dataclasses.replace(summary, took_over=words)

    def _ended(self, summary: TrialSummary) -> TrialSummary:
        """With how it ended, where that is not known yet."""
        if summary.end != "running":
            return summary
        if summary.epochs >= self._epochs.get(summary.trial_id, 0):
            return dataclasses.replace(summary, end="finished")
        asked = self._steering.by_hand(summary.trial_id)
        if asked is not None:
            return dataclasses.replace(summary, end="stopped by hand", reason=f"asked for at {asked}")
        spent = self._notes.ended_by_budget(summary)
        if spent:
            return dataclasses.replace(summary, end="stopped by budget", reason=spent)
        return dataclasses.replace(summary, end="stopped early", reason=self._notes.why_stopped(summary))

    def _close(self, summary: TrialSummary) -> None:
        if self._teaching is not None:
            self._teaching.ended(summary.trial_id)
        self._reserve.trial_ends(summary.trial_id)
        self._steering.trial_ended(summary.trial_id)
        self._book.change(summary)
        requests.done(self._folder, summary.number)
        phases: dict[End, Phase] = {
            "finished": "done", "stopped early": "stopped early", "stopped by hand": "stopped by hand",
            "stopped by budget": "stopped by budget",
        }  # fmt: skip
        phase = phases.get(summary.end, "failed")
        self._live.put(ProgressEvent(f"trial {summary.number}", phase, hmean=summary.hmean))
        self._write_end(self._runs[summary.trial_id], summary)
        best = best_trial(self._book.trials)
        ended = sum(t.end != "running" for t in self._book.trials)
        if best is not None and best.hmean is not None:
            spent = self.device_hours()
            self._parent.metrics({OBJECTIVE: best.hmean, "trials.ended": ended, DEVICE_HOURS: spent}, ended)

    def _write_end(self, run: TrackedRun, summary: TrialSummary) -> None:
        run.tags({"end": summary.end, "stopped_early": str(summary.end == "stopped early").lower()})
        diagnosis = self.diagnosis_of(summary.trial_id)
        if diagnosis and not summary.hmean:
            run.tags({"diagnosis": diagnosis})
        if summary.reason:
            run.tags({"reason": summary.reason})
        if not summary.epochs:  # no worker has said what it trains with
            run.tags({f"drawn.{key}": str(value) for key, value in summary.values.items()})
            run.metrics({DEVICE_HOURS: self._notes.device_hours([summary])}, 0)
        if summary.best:
            run.artifact(Path(summary.best).parent, "best")
        run.end("FAILED" if summary.end == "failed" else "FINISHED")

    def _timed(self, trial_id: str) -> TrialSummary:
        summary = self._book.of(trial_id)
        assert summary is not None, f"{trial_id} reports before it has started"
        if self._steering.had_ended(trial_id):
            return summary
        began, before = self._began[trial_id]
        return dataclasses.replace(summary, seconds=before + time.monotonic() - began)
