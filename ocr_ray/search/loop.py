"""Tune's loop over the trials of one sweep, and what has to be held still around it."""

import contextlib
import dataclasses
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayError
from ray.tune.search import Searcher, SearchGenerator
from ray.tune.stopper import CombinedStopper
from ray.util.queue import Empty, Queue

from ocr_ray.config import RecipeConfig
from ocr_ray.donors import drop_all
from ocr_ray.errors import RunError
from ocr_ray.prestart import fill_up
from ocr_ray.progress import LiveFeed
from ocr_ray.record import Recorder
from ocr_ray.search.budget import Budget
from ocr_ray.search.cost import CostEstimate
from ocr_ray.search.first import FirstTrials
from ocr_ray.search.halt import interrupting, signals_given_back
from ocr_ray.search.history import past_reports
from ocr_ray.search.notes import TrialNotes
from ocr_ray.search.placement import TRIAL_CPU
from ocr_ray.search.population import DonorKeeper, Population
from ocr_ray.search.reserve import Reserve
from ocr_ray.search.room import KeptRoom
from ocr_ray.search.schedulers import build_scheduler
from ocr_ray.search.searchers import build_searcher
from ocr_ray.search.snapshot import TUNES_FOLDER, keep, put_back
from ocr_ray.search.steering import Steering, steered
from ocr_ray.search.stopping import Stopping
from ocr_ray.search.trial import OBJECTIVE, run_trial
from ocr_ray.search.trials import TrialBook, best_trial
from ocr_ray.search.warm import WarmStart, study_with
from ocr_ray.search.watch import SweepWatch
from ocr_ray.spaces import SearchSpace
from ocr_ray.stopwatch import HOUR_S, Stopwatch
from ocr_ray.teaching.sharing import Teaching
from ocr_ray.tracking import TrackedRun, Tracker
from ocr_ray.train import worker_resources
from ocr_ray.typed import to_plain, with_values


@dataclass(frozen=True)
class TuneLoop:
    """The loop of one sweep, in the driver's main thread."""

    cfg: RecipeConfig
    space: SearchSpace
    folder: Path
    """The sweep's."""
    book: TrialBook
    live: LiveFeed
    tracker: Tracker
    parent: TrackedRun
    """The sweep's run in MLflow."""
    teaching: Teaching | None
    recorder: Recorder
    stopwatch: Stopwatch
    kept: KeptRoom
    """What the trials leave of the budget."""
    confirm_spent_s: float = 0.0
    """Device-seconds that a confirmation has taken already."""

    def run(
        self,
        first: FirstTrials,
        rule: Stopping,
        earlier: WarmStart,
        cost: CostEstimate,
        at_once: int,
        resume: bool,
    ) -> str:
        """Runs Tune's loop to its end. Returns: the budget that ended it before its time, or nothing.

        Raises: KeyboardInterrupt when people ended it; RunError when too many trials failed.
        """

        def config_of(values: Mapping[str, Any]) -> RecipeConfig:
            return with_values(self.cfg, self.space.settled(values), "trial")

        is_population = rule.rule == "pbt"
        left = self.cfg.sweep.trials - sum(trial.end != "running" for trial in self.book.trials)
        reserve = Reserve(left, lambda: fill_up(self.cfg.ray.num_workers, worker_resources(self.cfg)))
        study = study_with(earlier.trials, self.space) if earlier.trials else None
        searcher = build_searcher(self.cfg.sweep, first.points, at_once, study)
        search = SearchGenerator(searcher) if isinstance(searcher, Searcher) else searcher  # as Tune itself would
        past = past_reports(self.folder, self.book)
        scheduler = (
            Population(self.cfg, self.space, past) if is_population else build_scheduler(rule, first.control, past)
        )
        workers = self.cfg.ray.num_workers
        control = first.control is not None and not is_population

        def is_control(trial_id: str) -> bool:
            known = self.book.of(trial_id)
            return control and known is not None and known.number == 1

        budget = Budget(
            self.cfg.sweep,
            self.book,
            self.stopwatch,
            lambda: watch.device_hours() + self.confirm_spent_s / HOUR_S,
            search,
            self.kept.of_now,
            is_control,
        )
        notes = TrialNotes(
            self.folder,
            config_of,
            self.recorder,
            scheduler,
            workers,
            self.teaching,
            budget.why_ended,
            rule.decides_at,
            self.space.varied if is_population else (),
        )
        steering = Steering(self.folder, self.book, self.live.say, at_once=lambda: self.tracker.end_open_runs("KILLED"))
        watch = SweepWatch(
            self.book,
            self.space,
            self.tracker,
            self.parent,
            self.live,
            self.folder,
            notes,
            reserve,
            self.teaching,
            steering,
            DonorKeeper(self.folder),
        )
        if resume:
            watch.close_unwritten()
        feed = Queue(maxsize=1000, actor_options={"num_cpus": 0})
        trainable = tune.with_resources(
            tune.with_parameters(
                run_trial,
                config=to_plain(self.cfg),
                sweep=self.folder.name,
                storage=str(self.folder.parent),
                feed=feed,
                space=self.space,
                teaching=self.teaching,
            ),
            {"CPU": TRIAL_CPU},
        )
        domains = self.space.to_tune()
        self.live.note(cost.note)
        told: list[str] = []

        def tell_cost() -> None:
            sentence = None if told else cost.sentence(*self.live.timings())
            if sentence:
                told.append(sentence)
                self.live.say(sentence)
                self.parent.tags({"estimate": sentence})

        with (
            interrupting(self.tracker),
            _quiet_tune(self.folder),
            signals_given_back(),  # Tune keeps SIGINT, and the watch SIGTERM, after the loop has ended
            _relayed(feed, self.live, watch, reserve, steering, tell_cost),
            steered(steering, saved=lambda: keep(self.folder)),
        ):
            tune.run(
                trainable,
                name=TUNES_FOLDER,
                storage_path=str(self.folder),
                config={key: domains[key] for key in self.space.varied},
                num_samples=self.cfg.sweep.trials,
                metric=OBJECTIVE if self.cfg.sweep.against is None else None,
                mode="max" if self.cfg.sweep.against is None else None,
                search_alg=search,
                scheduler=scheduler,
                callbacks=[watch],
                stop=CombinedStopper(budget, steering),
                verbose=0,
                raise_on_failed_trial=False,
                # Of a trial's own process; its workers are restarted by Ray Train.
                max_failures=self.cfg.ray.max_failures,
                trial_name_creator=_trial_id,
                trial_dirname_creator=_trial_id,
                resume_config=_resume_config(self.folder) if resume else None,
            )
        watch.close_lost()
        if budget.too_many_failed:
            raise RunError(f"{self.folder.name}: {budget.too_many_failed}")
        drop_all(self.folder)
        best = best_trial(self.book.trials)
        if best is not None and not best.hmean:
            self.live.say(f"val: no trial found anything; the best one: {watch.diagnosis_of(best.trial_id)}")
        return budget.reason


def _trial_id(trial: tune.experiment.Trial) -> str:
    return str(trial.trial_id)


def _resume_config(folder: Path) -> tune.ResumeConfig | None:
    """None where the sweep was ended before Tune had written anything down: it then starts afresh."""
    if not put_back(folder):
        return None
    resume = tune.ResumeConfig.ResumeType.RESUME
    return tune.ResumeConfig(unfinished=resume, errored=resume)  # type: ignore[arg-type]  # says str, checks the enum


@contextlib.contextmanager
def _relayed(
    feed: Queue, live: LiveFeed, watch: SweepWatch, reserve: Reserve, steering: Steering, heard: Callable[[], None]
) -> Iterator[None]:
    """Shows the workers' signs of life while the block runs, since Tune's loop has this thread.

    Args: heard is called after each of them.
    """
    over = threading.Event()

    def relay() -> None:
        while not over.is_set():
            try:
                event = feed.get(timeout=0.5)
            except Empty:
                continue
            except RayError:
                return
            live.put(dataclasses.replace(event, run=watch.name_of(event.run)))
            steering.trial_trains(event.run)
            reserve.trial_trains(event.run)
            heard()

    thread = threading.Thread(target=relay, name="relay", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)


@contextlib.contextmanager
def _quiet_tune(folder: Path) -> Iterator[None]:
    """What Tune says goes to `tune.log` in the folder while the block runs; the terminal is ours."""
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # else a table of its own, even with verbose=0
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # CSV, JSON and TensorBoard beside MLflow
    handler = logging.FileHandler(folder / "tune.log", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger(tune.__name__)
    logger.addHandler(handler)
    logger.propagate, before = False, logger.propagate
    try:
        with warnings.catch_warnings():
            # Of a population: by processes that are used again, which ours never are.
            warnings.filterwarnings("ignore", message="Consider boosting PBT")
            yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
        handler.close()
