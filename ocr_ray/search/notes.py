"""What is written down of each trial beside what its worker reports: its record, its cost, its rung, its end."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune.schedulers import TrialScheduler

from ocr_ray.config import RecipeConfig, to_yaml
from ocr_ray.errors import UserError
from ocr_ray.files import write_text
from ocr_ray.record import RECORD_FILE, Recorder
from ocr_ray.reports import USED_CONFIG
from ocr_ray.search.rungs import rung_reached, why_ended
from ocr_ray.search.trial import train_folder
from ocr_ray.search.trials import TrialSummary
from ocr_ray.stopwatch import HOUR_S, device_hours
from ocr_ray.teaching.sharing import Teaching
from ocr_ray.tracking import TrackedRun, Tracker
from ocr_ray.train import CONFIG_FILE

RUNG = "rung"
"""Metric: to how many of the rule's decisions the trial has come, the one that ended it included: under ASHA its rungs,
under the median rule the epochs from the first at which it may end a trial to the last but one."""


def device_hours_of(trials: list[TrialSummary], workers: int) -> float:
    """Of all these trials together, each of so many workers; those of a running one as far as it says."""
    return sum(trial.seconds for trial in trials) * workers / HOUR_S


class TrialNotes:
    """Of one sweep's trials.

    Args: folder is the sweep's; config_of gives the whole config of a trial from the values that it drew; recorder has
        made the sweep's own record, so that its trials' cost nothing; budget says why it ended the trial of that id,
        or nothing; decides_at are the epochs at which the scheduler may end a trial; scheduled are keys whose values
        change within a trial, so that each epoch's are written down.
    """

    def __init__(
        self,
        folder: Path,
        config_of: Callable[[Mapping[str, Any]], RecipeConfig],
        recorder: Recorder,
        scheduler: TrialScheduler,
        workers: int,
        teaching: Teaching | None,
        budget: Callable[[str], str],
        decides_at: Sequence[int] = (),
        scheduled: Sequence[str] = (),
    ) -> None:
        self._folder, self._config_of, self._recorder = folder, config_of, recorder
        self._scheduler, self._decides_at = scheduler, decides_at
        self._workers, self._teaching, self._budget = workers, teaching, budget
        self._scheduled = scheduled

    def start(
        self,
        tracker: Tracker,
        parent: TrackedRun,
        trial: TrialSummary,
        drawn: Mapping[str, Any],
        unless_ended: bool = False,
    ) -> TrackedRun:
        """The trial's MLflow run, with all that is needed to run it again, which also goes into its folder.

        Args: unless_ended as `Tracker.run`.
        """
        cfg = self._config_of(drawn)
        try:
            record = self._recorder.of(cfg)
        except UserError:  # a file that this trial alone names: its workers meet it as well, and say so
            record = self._recorder.without_inputs(cfg)
        text = to_yaml(cfg)
        folder = self._folder.parent / train_folder(self._folder.name, trial.trial_id)
        write_text(folder / CONFIG_FILE, text)
        write_text(folder / RECORD_FILE, record.to_json())
        tags = {"trial_id": trial.trial_id, **record.tags()}
        run = tracker.run(trial.trial_id, f"trial {trial.number}", parent, tags, unless_ended)
        run.text(text, CONFIG_FILE)
        run.text(record.to_json(), RECORD_FILE)
        return run

    def with_cost(self, report: Mapping[str, Any], trial: TrialSummary | None) -> dict[str, Any]:
        """The report of an epoch as its MLflow run takes it, with what the trial has cost and saved up to now.

        Without `trial` it is one of an earlier attempt, of whose cost only the epoch's own is known.
        """
        more: dict[str, float] = device_hours(report, self._workers, trial.seconds if trial else None)
        if self._scheduled:
            used = json.loads(report[USED_CONFIG])
            more |= {f"value.{key}": used[key] for key in self._scheduled}
        if self._decides_at:
            more[RUNG] = rung_reached(self._decides_at, int(report["epoch"]))
        if trial is not None and self._teaching is not None:
            more |= self._teaching.metrics_of(trial.trial_id)
        return {**report, **more, "config": report[USED_CONFIG]}

    def device_hours(self, trials: list[TrialSummary]) -> float:
        """`device_hours_of` these trials."""
        return device_hours_of(trials, self._workers)

    def ended_by_budget(self, trial: TrialSummary) -> str:
        """The budget that ended it before its last epoch; empty where none did."""
        return self._budget(trial.trial_id)

    def why_stopped(self, trial: TrialSummary) -> str:
        """Why the scheduler ended it before its last epoch."""
        return why_ended(self._scheduler, trial.trial_id, trial.epochs)
