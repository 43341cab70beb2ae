"""The runs of a confirmation: trained side by side, as a sweep's trials are, but each to its last epoch.

A run's folder follows from its config's name and its seed, so that a resume finds what was finished, and goes on with
the rest.
"""

import contextlib
import dataclasses
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray import ObjectRef
from ray.train import UserCallback
from ray.util.queue import Empty, Queue

from ocr_ray.config import RecipeConfig, recipe_from_plain, to_yaml
from ocr_ray.confirm.candidates import Candidate
from ocr_ray.confirming import AskedRun, write_asked
from ocr_ray.engine.best import BEST_FOLDER
from ocr_ray.errors import ClusterError, UserError
from ocr_ray.progress import LiveFeed, ProgressEvent
from ocr_ray.record import RECORD_FILE, Recorder, RunRecord
from ocr_ray.reports import CONFIRM_FOLDER, append_report, read_reports
from ocr_ray.search.budget import SAVED_EVERY_S
from ocr_ray.search.cost import CostEstimate
from ocr_ray.search.halt import Halt, interrupting, signals_given_back
from ocr_ray.search.placement import TRIAL_CPU, room_for_trials
from ocr_ray.spaces import SearchSpace
from ocr_ray.stopwatch import DEVICE_HOURS, HOUR_S, SPENT_FILE, Stopwatch, device_hours
from ocr_ray.teaching.sharing import Teaching, TeachingPlan, open_teaching, plan_teaching
from ocr_ray.tracking import STAGE_TAG, TrackedRun, Tracker
from ocr_ray.train import CONFIG_FILE, build_trainer, put_down, reason, spoken, worker_resources
from ocr_ray.typed import to_plain
from ocr_ray.worker import DIAGNOSIS, STOPPED, raise_if_stopped


@dataclass(frozen=True)
class ConfirmRun:
    """One config with one seed."""

    candidate: Candidate
    seed: int
    cfg: RecipeConfig
    folder: str
    """Name of its folder in the storage."""

    @property
    def name(self) -> str:
        """As people see it."""
        return f"{self.candidate.name}, seed {self.seed}"

    def asked(self, reason: str = "") -> AskedRun:
        """As it is written down; with why it failed, where it did."""
        return AskedRun(Path(self.folder).name, self.name, self.cfg.optim.epochs, reason)

    def last_report(self, storage: Path) -> dict[str, Any] | None:
        """That of its last epoch; None while it has not come to its end."""
        reports = read_reports(storage / self.folder)
        return reports[-1] if reports and reports[-1]["epoch"] >= self.cfg.optim.epochs else None

    def epochs_left(self, storage: Path) -> int:
        """0 when it has come to its end."""
        reports = read_reports(storage / self.folder)
        return max(0, self.cfg.optim.epochs - (int(reports[-1]["epoch"]) if reports else 0))


@dataclass(frozen=True)
class Confirmed:
    """What a sweep's confirmation has done and taken so far, as its runs' folders tell."""

    runs: int = 0
    """Runs that came to their last epoch."""
    device_seconds: float = 0.0
    """Of all its runs, over all attempts."""


def confirmed_so_far(folder: Path, cfg: RecipeConfig) -> Confirmed:
    """Of the sweep in `folder`; cfg is its own."""
    folders = [path.parent for path in folder.glob(f"{CONFIRM_FOLDER}/*/{SPENT_FILE}")]
    ended = [reports for at in folders if (reports := read_reports(at)) and reports[-1]["epoch"] >= cfg.optim.epochs]
    return Confirmed(len(ended), sum(Stopwatch(at).seconds for at in folders) * cfg.ray.num_workers)


class ConfirmRuns:
    """Trains the runs of a confirmation, as many at a time as there is room for.

    Args: folder is the sweep's, whose wall time stopwatch has; estimate is of what the sweep costs in all.
    """

    def __init__(
        self,
        cfg: RecipeConfig,
        space: SearchSpace,
        folder: Path,
        live: LiveFeed,
        tracker: Tracker,
        parent: TrackedRun,
        stopwatch: Stopwatch,
        estimate: CostEstimate,
    ) -> None:
        self._cfg, self._space, self._folder, self._storage = cfg, space, folder, folder.parent
        self._live, self._tracker, self._parent = live, tracker, parent
        self._stopwatch, self._estimate = stopwatch, estimate
        self._stopwatches: dict[str, Stopwatch] = {}
        self._recorder = Recorder()
        self._told: set[str] = set()
        self._halt = Halt(
            folder,
            "confirm",
            lambda running: "; ".join(sorted(running)),
            live.say,
            at_once=lambda: tracker.end_open_runs("KILLED"),
        )

    def train(self, runs: Sequence[ConfirmRun], stage: str) -> dict[str, str]:
        """All of them; those that were finished before stay as they are. Returns: why runs failed, by folder.

        Raises: KeyboardInterrupt when people ended it, as they end a sweep's trials.
        """
        left = [run for run in runs if run.last_report(self._storage) is None]
        done = len(runs) - len(left)
        self._live.stage(stage, len(runs))
        self._live.note(dataclasses.replace(self._estimate, trials=len(runs)).note)
        self._live.say(
            f"confirm: {len({run.candidate.key for run in runs})} configs x {self._cfg.sweep.seeds} seeds, "
            f"{len(runs)} runs to their last epoch" + (f", {done} of them done before" if done else "")
        )
        write_asked(self._folder, [run.asked() for run in runs])
        for run in runs:
            if run not in left:
                self._close(run, self._tracked(run, has_ended=True), "")
        failed: dict[str, str] = {}
        with interrupting(self._tracker), signals_given_back():
            self._halt.heed_signals()
            for wave, plans in self._waves(left):
                self._train_wave(runs, wave, plans, failed)
        return failed

    def _waves(self, runs: list[ConfirmRun]) -> Iterator[tuple[list[ConfirmRun], dict[int, TeachingPlan]]]:
        """Runs that are under way together. Pictures differ by seed, so each seed has a teacher's answers of its own
        and somebody who computes them; as many seeds at a time as fill the cluster. Of no runs there is no wave."""
        if not runs:
            return
        by_seed = [list(group) for _, group in groupby(runs, key=lambda run: run.seed)]
        plans: dict[int, TeachingPlan] = {}
        for group in by_seed:
            plan = plan_teaching(_longest(group).cfg, self._space.varied, self._live)
            if plan is None:  # of none, then: whether answers can be shared does not depend on the seed
                yield runs, {}
                return
            plans[group[0].seed] = plan
        most = max(map(len, by_seed))
        for at_once in range(len(by_seed), 0, -1):
            # The last seed of a wave finds room as well. One has to do, whatever there is.
            if at_once == 1 or self._room(list(plans.values())[:at_once]) > (at_once - 1) * most:
                break
        for at in range(0, len(by_seed), at_once):
            groups = by_seed[at : at + at_once]
            yield [run for group in groups for run in group], {group[0].seed: plans[group[0].seed] for group in groups}

    def _room(self, plans: Sequence[TeachingPlan]) -> int:
        """Runs at a time beside the producers of these plans; 0 where there is none beside so many. Raises:
        ClusterError where there never is any."""
        beside = [share for plan in plans for share in plan.resources()]
        try:
            room = room_for_trials(self._cfg.ray.num_workers, worker_resources(self._cfg), beside)
        except ClusterError:
            if len(plans) < 2:
                raise
            return 0
        return min(room, self._cfg.sweep.max_concurrent or room)

    def _train_wave(
        self,
        everyone: Sequence[ConfirmRun],
        runs: list[ConfirmRun],
        plans: Mapping[int, TeachingPlan],
        failed: dict[str, str],
    ) -> None:
        """Trains `runs`, and adds to `failed` which of them did not come through."""
        at_once = self._room(list(plans.values()))
        feed = Queue(maxsize=1000, actor_options={"num_cpus": 0})
        waiting, under_way = deque(runs), dict[ObjectRef[str], tuple[ConfirmRun, TrackedRun]]()
        with contextlib.ExitStack() as stack:
            teachings: dict[int, Teaching] = {}
            for seed, plan in plans.items():
                longest = _longest([run for run in runs if run.seed == seed])
                teachings[seed] = open_teaching(longest.cfg, plan)
                stack.callback(teachings[seed].close)
            stack.callback(_cancel, under_way)
            stack.callback(self._save_times, 0.0)
            while waiting or under_way:
                self._halt.look()
                self._save_times(SAVED_EVERY_S)
                while waiting and len(under_way) < at_once and not self._halt.stopping:
                    run = waiting.popleft()
                    under_way[self._start(run, feed, teachings.get(run.seed))] = run, self._tracked(run)
                if not under_way:
                    continue  # asked to stop just now
                tracked = {run.name: (run, its) for run, its in under_way.values()}
                self._pass_on(feed, tracked, teachings)
                ended, _ = ray.wait(list(under_way), timeout=0.5)
                if ended:
                    self._pass_on(feed, tracked, teachings)  # what came in the meantime
                for ref in ended:
                    run, its = under_way.pop(ref)
                    if run.seed in teachings:
                        teachings[run.seed].ended(run.name)
                    why = self._end(run, its, ref)
                    if why:
                        failed[run.folder] = why
                        write_asked(self._folder, [one.asked(failed.get(one.folder, "")) for one in everyone])
            for seed, teaching in teachings.items():
                taught = teaching.stats()
                if taught is not None:
                    self._live.say(f"seed {seed}: {taught.one_line()}")

    def _start(self, run: ConfirmRun, feed: Queue, teaching: Teaching | None) -> ObjectRef[str]:
        (self._storage / run.folder / STOPPED).unlink(missing_ok=True)  # tried again
        self._live.put(ProgressEvent(run.name, "starting", epochs=run.cfg.optim.epochs))
        self._stopwatches[run.name] = Stopwatch(self._storage / run.folder)
        if teaching is not None:
            teaching.started(run.name)
        task = ray.remote(_train_one).options(num_cpus=TRIAL_CPU, max_retries=self._cfg.ray.max_failures)
        return task.remote(to_plain(run.cfg), str(self._storage), run.folder, run.name, feed, teaching)

    def _tracked(self, run: ConfirmRun, has_ended: bool = False) -> TrackedRun:
        """Its MLflow run, with what an earlier driver has not heard of, and with all that is needed to run it again.

        Of one that has ended nothing is written down that was not then: code and files may have changed since. Where
        MLflow has its end as well, the run stays as it is.
        """
        folder = self._storage / run.folder
        record = None if has_ended else self._record(run)
        tags = {STAGE_TAG: CONFIRM_FOLDER, "candidate": run.candidate.name, "seed": str(run.seed)}
        tags |= record.tags() if record is not None else {}
        tracked = self._tracker.run(run.folder, f"confirm {run.name}", self._parent, tags, has_ended)
        tracked.text(to_yaml(run.cfg), CONFIG_FILE)
        if record is not None:
            put_down(record, folder, tracked, self._live)
        elif (folder / RECORD_FILE).exists():
            tracked.artifact(folder / RECORD_FILE)
        for report in read_reports(folder):
            tracked.report(self._with_cost(report))
        return tracked

    def _record(self, run: ConfirmRun) -> RunRecord:
        try:
            return self._recorder.of(run.cfg)
        except UserError:  # its workers meet the file as well, and say so
            return self._recorder.without_inputs(run.cfg)

    def _with_cost(self, report: Mapping[str, Any], run: str = "", teaching: Teaching | None = None) -> dict[str, Any]:
        """The report of an epoch as MLflow takes it. With the name of a run that is under way: with all that it has
        cost and saved up to now."""
        seconds = self._stopwatches[run].seconds if run in self._stopwatches else None
        saved = teaching.metrics_of(run) if teaching is not None else {}
        return {**report, **device_hours(report, self._cfg.ray.num_workers, seconds), **saved}

    def _pass_on(
        self, feed: Queue, tracked: Mapping[str, tuple[ConfirmRun, TrackedRun]], teachings: Mapping[int, Teaching]
    ) -> None:
        """Shows and records what the workers have sent."""
        with contextlib.suppress(Empty, ray.exceptions.RayError):
            while True:
                news = feed.get_nowait()
                if isinstance(news, ProgressEvent):
                    self._live.put(news)
                    self._halt.trains(news.run)
                    continue
                name, report = news
                self._halt.reported(name)
                if name in tracked:
                    run, its = tracked[name]
                    its.report(self._with_cost(report, name, teachings.get(run.seed)))
                for line in spoken({**report, DIAGNOSIS: ""}, self._told):
                    self._live.say(line)

    def _save_times(self, least_s: float) -> None:
        """Writes down what has been spent, for an attempt to come."""
        for watch in (self._stopwatch, *self._stopwatches.values()):
            watch.save(least_s)

    def _end(self, run: ConfirmRun, tracked: TrackedRun, ref: ObjectRef[str]) -> str:
        """Returns: why the run failed; empty where it did not."""
        self._halt.ended(run.name)
        self._stopwatches.pop(run.name).save()
        try:
            why = str(ray.get(ref))
        except ray.exceptions.RayError as e:
            why = reason(e)
        for report in read_reports(self._storage / run.folder):  # those of which the feed was lost
            tracked.report(self._with_cost(report))
        if run.last_report(self._storage) is not None:
            why = ""  # whatever came after its last epoch
        elif not why:
            why = "ended without a report of its last epoch"
        self._close(run, tracked, why)
        return why

    def _close(self, run: ConfirmRun, tracked: TrackedRun, why: str) -> None:
        last = run.last_report(self._storage)
        if why or last is None:
            tracked.tags({"end": "failed", "stopped_early": "false", "reason": why})
            self._live.put(ProgressEvent(run.name, "failed"))
        else:
            tracked.tags({"end": "finished", "stopped_early": "false", "reason": ""})
            tracked.artifact(Path(last["best_path"]).parent, BEST_FOLDER)
            self._live.put(ProgressEvent(run.name, "done", hmean=last["hmean.best"]))
        seconds = Stopwatch(self._storage / run.folder, clock=lambda: 0.0).seconds  # what was written down
        if seconds:
            epoch = run.cfg.optim.epochs - run.epochs_left(self._storage)  # a later one a new attempt could not write
            tracked.finals({DEVICE_HOURS: seconds * self._cfg.ray.num_workers / HOUR_S}, epoch)
        tracked.end("FAILED" if why else "FINISHED")


def _longest(runs: Sequence[ConfirmRun]) -> ConfirmRun:
    return max(runs, key=lambda run: run.cfg.optim.epochs)


def _train_one(
    config: dict[str, Any], storage: str, name: str, label: str, feed: Queue, teaching: Teaching | None
) -> str:
    """In a process of its own: one run, from its last checkpoint on. Returns: why it failed; empty where it did not.

    What Ray Train has given up on, or a mistake of the user, would come again with each new attempt; a process that is
    lost is another matter, and Ray starts this anew.
    """
    folder = Path(storage) / name
    try:
        callbacks: list[UserCallback] = [_Forward(feed, folder, label)]
        cfg = recipe_from_plain(config, "config")
        build_trainer(cfg, name, Path(storage), callbacks, feed, "", label, teaching).fit()
        raise_if_stopped(folder)
    except UserError as e:
        return str(e)
    except Exception as e:
        return reason(e)
    return ""


class _Forward(UserCallback):
    """In the controller: writes each report down, and hands it to the driver with the name of its run."""

    def __init__(self, feed: Queue, folder: Path, label: str) -> None:
        self._feed, self._folder, self._label = feed, folder, label

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: ray.train.Checkpoint | None
    ) -> None:
        append_report(self._folder, metrics[0])
        with contextlib.suppress(ray.exceptions.RayError):  # a driver that is gone reads it from the folder
            self._feed.put((self._label, metrics[0]))


def _cancel(under_way: Mapping[ObjectRef[str], object]) -> None:
    """Ends what an interrupt or an error has left running; its workers go with it."""
    for ref in under_way:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.cancel(ref, force=True)
