"""After a sweep: its best trials are trained again with fresh seeds, beside the default config, and judged.

A trial that won a search was lucky to some part; the same config trained anew was not chosen for its luck. Each seed is
used by every config, so that their runs see the same batches and differ by their knobs alone. A run's folder follows
from its trial and its seed, so that a resume finds what was finished, and goes on with the rest.
"""

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
from ray import ObjectRef
from ray.train import UserCallback
from ray.util.queue import Empty, Queue

from ocr_ray.config import RecipeConfig, recipe_from_plain, to_yaml
from ocr_ray.engine.best import BEST_FOLDER
from ocr_ray.engine.loop import KEPT
from ocr_ray.engine.per_image import PER_IMAGE_FILE, ImageCounts, aligned, read_per_image
from ocr_ray.errors import ClusterError, RunError, UserError
from ocr_ray.evidence import Counts
from ocr_ray.progress import LiveFeed, ProgressEvent
from ocr_ray.reports import append_report, read_reports
from ocr_ray.search.placement import TRIAL_CPU, room_for_trials
from ocr_ray.search.trials import TrialSummary
from ocr_ray.spaces import Scalar, SearchSpace
from ocr_ray.teaching.sharing import Teaching, TeachingPlan, open_teaching, plan_teaching
from ocr_ray.tracking import TrackedRun, Tracker
from ocr_ray.train import CONFIG_FILE, build_trainer, reason, spoken, worker_resources
from ocr_ray.typed import flatten, to_plain, with_values
from ocr_ray.verdict import DEFAULT_NAME, START_NAME, Arm, Confirmation, Kind, judge
from ocr_ray.worker import DIAGNOSIS, STOPPED, raise_if_stopped

CONFIRM_FOLDER = "confirm"
SEED = "run.seed"
STAGE_TAG = "stage"
"""Of the runs of a confirmation, which hang on the same parent as the trials."""


@dataclass(frozen=True)
class Candidate:
    """A config that is trained again: a trial's values, or the config's own."""

    kind: Kind
    key: str
    """Stem of its folders' names."""
    name: str
    values: dict[str, Scalar]


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

    def last_report(self, storage: Path) -> dict[str, Any] | None:
        """That of its last epoch; None while it has not come to its end."""
        reports = read_reports(storage / self.folder)
        return reports[-1] if reports and reports[-1]["epoch"] >= self.cfg.optim.epochs else None


def candidates_of(trials: Sequence[TrialSummary], own: Mapping[str, Scalar], count: int) -> list[Candidate]:
    """The `count` best trials by hmean, without those that had the config's own values, or the values of a better one;
    fewer where there are no more that have weights to show."""
    shown = [t for t in trials if t.hmean is not None and t.best]
    chosen: list[Candidate] = []
    for trial in sorted(shown, key=lambda t: (-(t.hmean or 0.0), t.number)):
        values = _without_seed(trial.values)
        if values != _without_seed(own) and values not in [c.values for c in chosen]:
            chosen.append(Candidate("candidate", f"trial-{trial.number}", f"trial {trial.number}", values))
    return chosen[:count]


def default_trial(trials: Sequence[TrialSummary], space: SearchSpace, cfg: RecipeConfig) -> TrialSummary | None:
    """The trial that had the config's own values and has weights to show, if there is one."""
    own = own_values(space, cfg)
    return next((t for t in trials if t.best and _without_seed(t.values) == _without_seed(own)), None)


def own_values(space: SearchSpace, cfg: RecipeConfig) -> dict[str, Scalar]:
    """The config's own values of the varied keys, also where they lie outside the space."""
    flat = flatten(cfg)
    return {key: flat[key] for key in space.varied}


def fresh_seeds(cfg: RecipeConfig, trials: Sequence[TrialSummary]) -> list[int]:
    """`sweep.seeds` seeds that no trial had: the first ones above."""
    searched = [seed for t in trials if isinstance(seed := t.values.get(SEED), int)]
    first = max([cfg.run.seed, *searched]) + 1
    return list(range(first, first + cfg.sweep.seeds))


def confirm(
    cfg: RecipeConfig,
    space: SearchSpace,
    folder: Path,
    trials: Sequence[TrialSummary],
    start: tuple[Path, Sequence[ImageCounts]] | None,
    live: LiveFeed,
    tracker: Tracker,
    parent: TrackedRun,
) -> Confirmation:
    """Trains the best `sweep.confirm` trials and the default config with `sweep.seeds` fresh seeds each, to their last
    epoch, and holds them against each other and against the start.

    Args: cfg is the sweep's, folder its own; start are the untouched weights as a file and what they gave on val.
    Raises: RunError when no run came through.
    """
    own = own_values(space, cfg)
    candidates = candidates_of(trials, own, cfg.sweep.confirm)
    if len(candidates) < cfg.sweep.confirm:
        live.say(f"note: sweep.confirm={cfg.sweep.confirm}, and {len(candidates)} other trials have weights to show")
    everyone = [*candidates, Candidate("default", "default", DEFAULT_NAME, _without_seed(own))]
    seeds = fresh_seeds(cfg, trials)
    runs = [
        ConfirmRun(
            candidate,
            seed,
            with_values(cfg, {**candidate.values, SEED: seed}, "confirmation"),
            f"{folder.name}/{CONFIRM_FOLDER}/{candidate.key}-seed-{seed}",
        )
        for seed in seeds
        for candidate in everyone
    ]
    failed = _Runs(cfg, space, folder.parent, live, tracker, parent).train(runs, f"confirm {folder.name}")
    return judge(arms_of(everyone, runs, failed, folder.parent, start), seeds)


def arms_of(
    candidates: Sequence[Candidate],
    runs: Sequence[ConfirmRun],
    failed: Mapping[str, str],
    storage: Path,
    start: tuple[Path, Sequence[ImageCounts]] | None,
) -> list[Arm]:
    """What the runs on disk gave, for `judge`. A candidate of which a run is in `failed` has no counts."""
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
        arms.append(Arm("start", START_NAME, _stacked(together[-1:]), (start[0],)))
    return arms


class _Runs:
    """Trains the runs of a confirmation, as many at a time as there is room for."""

    def __init__(
        self,
        cfg: RecipeConfig,
        space: SearchSpace,
        storage: Path,
        live: LiveFeed,
        tracker: Tracker,
        parent: TrackedRun,
    ) -> None:
        self._cfg, self._space, self._storage = cfg, space, storage
        self._live, self._tracker, self._parent = live, tracker, parent
        self._told: set[str] = set()

    def train(self, runs: Sequence[ConfirmRun], stage: str) -> dict[str, str]:
        """All of them; those that were finished before stay as they are. Returns: why runs failed, by folder."""
        left = [run for run in runs if run.last_report(self._storage) is None]
        done = len(runs) - len(left)
        self._live.stage(stage, len(left))
        self._live.say(
            f"confirm: {len({run.candidate.key for run in runs})} configs x {self._cfg.sweep.seeds} seeds, "
            f"{len(runs)} runs to their last epoch" + (f", {done} of them done before" if done else "")
        )
        for run in runs:
            if run not in left:
                self._close(run, self._tracked(run), "")
        failed: dict[str, str] = {}
        for wave, plans in self._waves(left):
            failed |= self._train_wave(wave, plans)
        return failed

    def _waves(self, runs: list[ConfirmRun]) -> Iterator[tuple[list[ConfirmRun], dict[int, TeachingPlan]]]:
        """Runs that are under way together. Pictures differ by seed, so each seed has a teacher's answers of its own
        and somebody who computes them; as many seeds at a time as fill the cluster."""
        by_seed = [list(group) for _, group in groupby(runs, key=lambda run: run.seed)]
        plans: dict[int, TeachingPlan] = {}
        for group in by_seed:
            plan = plan_teaching(group[0].cfg, self._space.varied, self._live)
            if plan is None:  # of none, then: whether answers can be shared does not depend on the seed
                yield runs, {}
                return
            plans[group[0].seed] = plan
        most = max(map(len, by_seed), default=0)
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

    def _train_wave(self, runs: list[ConfirmRun], plans: Mapping[int, TeachingPlan]) -> dict[str, str]:
        at_once = self._room(list(plans.values()))
        feed = Queue(maxsize=1000, actor_options={"num_cpus": 0})
        waiting, under_way = deque(runs), dict[ObjectRef[str], tuple[ConfirmRun, TrackedRun]]()
        failed: dict[str, str] = {}
        with contextlib.ExitStack() as stack:
            teachings: dict[int, Teaching] = {}
            for seed, plan in plans.items():
                run = next(run for run in runs if run.seed == seed)
                teachings[seed] = open_teaching(run.cfg, plan)
                stack.callback(teachings[seed].close)
            stack.callback(_cancel, under_way)
            while waiting or under_way:
                while waiting and len(under_way) < at_once:
                    run = waiting.popleft()
                    under_way[self._start(run, feed, teachings.get(run.seed))] = run, self._tracked(run)
                tracked = {run.name: its for run, its in under_way.values()}
                self._pass_on(feed, tracked)
                ended, _ = ray.wait(list(under_way), timeout=0.5)
                if ended:
                    self._pass_on(feed, tracked)  # what came in the meantime
                for ref in ended:
                    run, its = under_way.pop(ref)
                    if run.seed in teachings:
                        teachings[run.seed].ended(run.name)
                    why = self._end(run, its, ref)
                    if why:
                        failed[run.folder] = why
            for seed, teaching in teachings.items():
                taught = teaching.stats()
                if taught is not None:
                    self._live.say(f"seed {seed}: {taught.one_line()}")
        return failed

    def _start(self, run: ConfirmRun, feed: Queue, teaching: Teaching | None) -> ObjectRef[str]:
        (self._storage / run.folder / STOPPED).unlink(missing_ok=True)  # tried again
        self._live.put(ProgressEvent(run.name, "starting", epochs=run.cfg.optim.epochs))
        if teaching is not None:
            teaching.started(run.name)
        task = ray.remote(_train_one).options(num_cpus=TRIAL_CPU, max_retries=self._cfg.ray.max_failures)
        return task.remote(to_plain(run.cfg), str(self._storage), run.folder, run.name, feed, teaching)

    def _tracked(self, run: ConfirmRun) -> TrackedRun:
        """Its MLflow run, with what an earlier driver has not heard of."""
        tags = {STAGE_TAG: CONFIRM_FOLDER, "candidate": run.candidate.name, "seed": str(run.seed)}
        tracked = self._tracker.run(run.folder, f"confirm {run.name}", self._parent, tags)
        tracked.text(to_yaml(run.cfg), CONFIG_FILE)
        for report in read_reports(self._storage / run.folder):
            tracked.report(report)
        return tracked

    def _pass_on(self, feed: Queue, tracked: Mapping[str, TrackedRun]) -> None:
        """Shows and records what the workers have sent."""
        with contextlib.suppress(Empty, ray.exceptions.RayError):
            while True:
                news = feed.get_nowait()
                if isinstance(news, ProgressEvent):
                    self._live.put(news)
                    continue
                name, report = news
                if name in tracked:
                    tracked[name].report(report)
                for line in spoken({**report, DIAGNOSIS: ""}, self._told):
                    self._live.say(line)

    def _end(self, run: ConfirmRun, tracked: TrackedRun, ref: ObjectRef[str]) -> str:
        """Returns: why the run failed; empty where it did not."""
        try:
            why = str(ray.get(ref))
        except ray.exceptions.RayError as e:
            why = reason(e)
        for report in read_reports(self._storage / run.folder):  # those of which the feed was lost
            tracked.report(report)
        if not why and run.last_report(self._storage) is None:
            why = "ended without a report of its last epoch"
        self._close(run, tracked, why)
        return why

    def _close(self, run: ConfirmRun, tracked: TrackedRun, why: str) -> None:
        last = run.last_report(self._storage)
        if why or last is None:
            tracked.tags({"reason": why})
            self._live.put(ProgressEvent(run.name, "failed"))
        else:
            tracked.artifact(Path(last["best_path"]).parent, BEST_FOLDER)
            self._live.put(ProgressEvent(run.name, "done", hmean=last["hmean.best"]))
        tracked.end("FAILED" if why else "FINISHED")


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


def _without_seed(values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {key: value for key, value in values.items() if key != SEED}


def _stacked(runs: Sequence[Counts]) -> Counts:
    """`(S, N, 3)` of S runs; of no runs, no pictures either."""
    return np.stack(runs) if runs else np.zeros((0, 0, 3), np.int64)
