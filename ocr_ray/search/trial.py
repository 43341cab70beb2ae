"""What runs inside a trial: its values become a config, the config a Ray Train run, the run's reports Tune's.

A trial is a process of Tune's that only waits; its controller and its workers are further ones. Each imports this
file, so what only some of them need is imported where it is used.
"""

import contextlib
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.train._internal.session import get_session
from ray.tune.integration.ray_train import TuneReportCallback
from ray.util.queue import Queue
from ray.util.state import get_actor
from ray.util.state.exception import RayStateApiException

from ocr_ray.donors import INHERITED, Donor, pin, point, pointed
from ocr_ray.reports import USED_CONFIG, append_report, read_reports
from ocr_ray.search.trials import OBJECTIVE as OBJECTIVE
from ocr_ray.search.trials import TrialBook

if TYPE_CHECKING:
    from ocr_ray.spaces import SearchSpace
    from ocr_ray.teaching.sharing import Teaching

JUDGED_BY = "hmean"
"""By which a population's trials take one another over: of the last evaluation, since the best so far is inherited."""
HELD = "held"
"""Key of a report: the folder of the `Donor` that has been made of its checkpoint."""
ENDED_WITHIN_S = 60
"""Longer than it takes Ray to end a process that it has told to."""
FAILED = "failed"
"""Key of a last report: why the trial failed, in one line."""


def plain_value(value: Any) -> Any:
    """A drawn value without NumPy's types, which configs and JSON do not take."""
    return value.item() if hasattr(value, "item") else value


def train_folder(sweep: str, trial_id: str) -> str:
    """Name of a trial's training run: it follows from the trial alone, so that a resume finds the checkpoints."""
    return f"{sweep}/train/{trial_id}"


class ReportToTune(TuneReportCallback):
    """In the controller: passes each report of rank 0 on to Tune, and writes it down for the time when Tune's driver
    has been stopped and does not take it any more, while the worker still finishes an epoch.

    Args: costs are of the trial's student, and go with each report; hold_every is the number of epochs after which a
        checkpoint is kept for others to go on from.
    """

    def __init__(self, folder: Path, costs: Mapping[str, float], hold_every: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._folder, self._costs, self._hold_every = folder, dict(costs), hold_every

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """As Ray Train calls it, once all workers have reported."""
        report = {**metrics[0], **self._costs}
        report[USED_CONFIG] = report.pop("config")
        if self._hold_every and report["epoch"] % self._hold_every == 0:
            sweep, best = self._folder.parents[1], Path(report["best_path"]).parent
            report[HELD] = pin(sweep, self._folder.name, report["epoch"], Path(checkpoint.path), best).path
        append_report(self._folder, report)
        super().after_report(run_context, [report], checkpoint)

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """As Ray Train calls it before it starts workers anew.

        A controller whose trial has just been ended may see its workers go before it goes itself. Room that it took
        for new ones in that moment would be nobody's, and no later trial would find a place. So it waits for its end.
        """
        if _is_being_ended():
            time.sleep(ENDED_WITHIN_S)


def _is_being_ended() -> bool:
    """Whether the cluster counts the actor that asks among the dead."""
    context = ray.get_runtime_context()
    own = context.get_actor_id()
    with contextlib.suppress(RayStateApiException, ray.exceptions.RayError, ConnectionError):
        actor = get_actor(own, address=context.gcs_address, timeout=10) if own is not None else None
        return actor is not None and actor.state == "DEAD"
    return False


def run_trial(
    values: Mapping[str, Any],
    config: dict[str, Any],
    sweep: str,
    storage: str,
    feed: Queue,
    space: "SearchSpace",
    teaching: "Teaching | None" = None,
) -> None:
    """The function that Tune runs for each trial.

    A failure that Ray Train has given up on, or a mistake of the user, is reported as the trial's last result: it
    would come again with each new attempt. Only a trial whose own process is lost fails in Tune's eyes. A searcher is
    to stay away from values that a run refuses or diverges with (0), and learns nothing from a crash (NaN).

    Args: values are dotted keys with what the searcher drew from space; config is the whole recipe as plain data;
        sweep is the folder's name in storage; feed takes the worker's `ProgressEvent`s, under the trial's id; teaching
        is where it reads its teacher's answers.
    """
    from ocr_ray.config import recipe_from_plain
    from ocr_ray.errors import UserError
    from ocr_ray.search.student import LATENCY, PARAMETERS, costs_of
    from ocr_ray.train import build_trainer, reason
    from ocr_ray.typed import with_values
    from ocr_ray.worker import raise_if_stopped

    trial_id = tune.get_context().get_trial_id()
    name = train_folder(sweep, trial_id)
    folder = Path(storage) / name
    costs = {PARAMETERS: math.nan, LATENCY: math.nan}  # of a config that cannot be
    try:
        drawn = space.settled({key: plain_value(value) for key, value in values.items()})
        cfg = with_values(recipe_from_plain(config, "config"), drawn, "trial")
        hold_every, donor = None, ""
        if cfg.sweep.scheduler == "pbt":
            hold_every, donor = cfg.sweep.perturb_epochs, _donor_of_another(trial_id)
            _point_to_donors()
        costs = costs_of(cfg, Path(storage) / sweep)
        book = TrialBook(Path(storage) / sweep, {})
        book.load()
        heard = book.of(trial_id)
        reports = read_reports(folder)
        if donor and not any(report.get(INHERITED) == Path(donor).name for report in reports):
            reports = []  # it is to take over: what it had reached by itself is past
        for report in reports:
            # The driver of a resumed trial may not have heard of its last epochs, and there may be none left to run.
            # The last one that it did hear of comes again: it may have been killed before it compared it with others.
            if heard is None or report["epoch"] >= heard.epochs:
                tune.report({**report, **costs})
        callbacks: list[Any] = [ReportToTune(folder, costs, hold_every)]
        trainer = build_trainer(cfg, name, Path(storage), callbacks, feed, "", trial_id, teaching, donor)
        trainer.fit()
        raise_if_stopped(folder)
    except Exception as e:
        mistake = isinstance(e, UserError)
        # At epoch 0, where no scheduler compares it with others.
        why, hmean = (str(e), 0.0) if mistake else (reason(e), math.nan)
        told = {FAILED: why, "epoch": 0, OBJECTIVE: hmean, JUDGED_BY: hmean, **costs}
        tune.report(told)


def _donor_of_another(trial_id: str) -> str:
    """Where the donor lies that Tune has given to this trial; empty where there is none, or it is its own."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return ""
    with checkpoint.as_directory() as at:
        donor = pointed(Path(at))
    return donor.path if donor is not None and donor.trial_id != trial_id else ""


def _point_to_donors() -> None:
    """From now on a report of whose checkpoint a donor has been made brings Tune a checkpoint as well: a pointer.

    Reports come to Tune's session by a queue that takes no checkpoints (`TuneReportCallback`).
    """
    session: Any = get_session()
    report = session.report

    def with_pointer(metrics: dict[str, Any], checkpoint: tune.Checkpoint | None = None) -> None:
        held = metrics.get(HELD)
        if not held or not Path(held).exists():  # of a report from before a resume it may have been dropped
            report(metrics, checkpoint)
            return
        with tempfile.TemporaryDirectory(prefix="ocr_ray_donor_") as at:
            point(Path(at), Donor.at(Path(held)))
            report(metrics, tune.Checkpoint.from_directory(at))

    session.report = with_pointer
