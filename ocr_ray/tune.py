"""Ray Tune around Ray Train: a sweep is many training runs, of which a scheduler ends the poor ones early.

The driver runs Tune's loop and alone writes: to MLflow, to the sweep's books, to the terminal. Each trial is a small
process that starts a training run of its own, whose workers hold the CPUs and GPUs.
"""

import contextlib
import dataclasses
import logging
import os
import shlex
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ray import tune
from ray.exceptions import RayError
from ray.util.queue import Empty, Queue
from rich.table import Table

from ocr_ray.config import RecipeConfig, config_digest, to_yaml, with_paths_resolved
from ocr_ray.driver import Driver
from ocr_ray.errors import RunError
from ocr_ray.prestart import fill_up
from ocr_ray.progress import LiveFeed
from ocr_ray.search.first import FirstTrials, first_trials
from ocr_ray.search.history import past_reports, ranks_of
from ocr_ray.search.placement import TRIAL_CPU, check_state_api, room_for_trials
from ocr_ray.search.ranks import Ranks
from ocr_ray.search.reserve import Reserve
from ocr_ray.search.schedulers import Stopping, build_scheduler, stopping, stopping_notes
from ocr_ray.search.searchers import build_searcher, searcher_notes
from ocr_ray.search.snapshot import TUNES_FOLDER, keep, put_back
from ocr_ray.search.steering import Steering, SweepStopped, steered
from ocr_ray.search.student import check_start_fits
from ocr_ray.search.trial import OBJECTIVE, run_trial
from ocr_ray.search.trials import TrialBook, TrialSummary, best_trial, pareto_set, trials_table
from ocr_ray.search.watch import SweepWatch
from ocr_ray.session import connected
from ocr_ray.spaces import SearchSpace
from ocr_ray.start import say_if_below_start, start_metrics
from ocr_ray.teaching.desk import TeachingStats
from ocr_ray.teaching.gpu_need import with_gpu_share
from ocr_ray.teaching.sharing import Teaching, TeachingPlan, open_teaching, plan_teaching
from ocr_ray.tracking import TrackedRun, Tracker
from ocr_ray.train import CONFIG_FILE, announce, check_name, make_folder, open_tracker, worker_resources
from ocr_ray.typed import to_plain, with_values


@dataclass(frozen=True)
class SweepResult:
    """A finished sweep. `best` is the weights file of the best trial, its metadata beside it."""

    name: str
    folder: Path
    hmean: float
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
    pareto: tuple[TrialSummary, ...] | None = None
    """With `sweep.against`: the trials of which none has both a higher hmean and a lower cost, the cheapest first."""

    def table(self) -> Table:
        """A row for each trial, for the terminal."""
        return trials_table(list(self.trials), self.pareto)


def sweep(
    cfg: RecipeConfig,
    space: SearchSpace,
    name: str | None = None,
    resume: bool = False,
    live: LiveFeed | None = None,
) -> SweepResult:
    """Searches `space` around `cfg` by the settings of `cfg.sweep`, and keeps the best trial's best student.

    Args: name is the sweep's folder in `ray.storage`, by default recipe and time; resume goes on with the sweep of
        that name: ended trials stay as they are, others go on from their checkpoints; live shows the trials, by
        default on standard error.
    Raises: RunError when the name is taken, there is nothing to resume, or every trial failed; ClusterError when no
        trial can ever be placed; ConfigError, DataError and WeightsError for what the config names;
        KeyboardInterrupt after Ctrl-C, SIGTERM or `ocr-ray stop`, with the state saved for a resume.
    """
    began = time.monotonic()
    cfg = with_paths_resolved(with_values(cfg, space.fixed, space.source), Path.cwd())
    first = first_trials(cfg, space)
    cfg = with_values(cfg, {"sweep.trials": first.trials}, "grid")
    storage = Path(cfg.ray.storage)
    name = name or f"sweep-{cfg.recipe}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = storage / name
    check_name(cfg, folder, resume)
    book = TrialBook(folder, space.identity())
    if resume:
        _take_up(book, name)
    with contextlib.ExitStack() as stack:
        if live is None:
            live = stack.enter_context(LiveFeed())
        live.stage(f"sweep {name}", cfg.sweep.trials)
        announce(cfg, live)
        check_start_fits(cfg, space)
        driver = stack.enter_context(Driver())
        stack.enter_context(connected(cfg.ray))
        plan = plan_teaching(cfg, space.varied, live)
        cfg = with_gpu_share(cfg, plan, live)
        at_once = _trials_at_once(cfg, live, plan)
        rule = stopping(cfg.sweep, cfg.optim.epochs, cfg.eval.every_epochs)
        for line in (*first.notes, *searcher_notes(cfg.sweep, space), *stopping_notes(cfg, rule)):
            live.say(line)
        tracker = stack.enter_context(open_tracker(cfg, folder, live))
        make_folder(cfg, folder)
        driver.take(folder, "sweep", resume_line(folder, space.source))
        tags = {"recipe": cfg.recipe, "config_digest": config_digest(cfg), "search_space": space.source}
        parent = tracker.run(name, name, tags=tags)
        parent.text(to_yaml(cfg), CONFIG_FILE)
        start = start_metrics(cfg, folder, live)
        parent.metrics(start, step=0)
        teaching = None
        if plan is not None:
            teaching = open_teaching(cfg, plan)
            stack.callback(teaching.close)
        try:
            _run_tune(cfg, space, folder, book, at_once, resume, live, tracker, parent, teaching, rule, first)
        except KeyboardInterrupt:
            live.say(f"sweep: stopped; `--name {name} --resume` goes on with it")
            raise
        taught = teaching.stats() if teaching is not None else None
        if taught is not None:
            live.say(taught.one_line())
        ranks = ranks_of(folder, book, rule.rungs if cfg.sweep.against is None else ())
        parent.metrics({**(taught.metrics() if taught is not None else {}), **ranks.metrics()}, len(book.trials) + 1)
        for line in ranks.lines():
            live.say(line)
        best = best_trial(book.trials)
        if best is None or best.hmean is None:
            _raise_all_failed(name, book.trials)
        parent.tags({"best_trial": str(best.number), "best_trial_id": best.trial_id})
        parent.artifact(Path(best.best).parent, "best")
        pareto = None
        if cfg.sweep.against is not None:
            pareto = tuple(pareto_set(book.trials, cfg.sweep.against))
            numbers = ", ".join(str(trial.number) for trial in pareto)
            parent.tags({"pareto_trials": numbers})
            live.say(f"Pareto set of hmean against {cfg.sweep.against}, the cheapest first: trials {numbers}")
        say_if_below_start(best.hmean, start, live)
    return SweepResult(
        name,
        folder,
        best.hmean,
        Path(best.best),
        best,
        tuple(book.trials),
        tracker.ui_line,
        time.monotonic() - began,
        taught,
        ranks,
        pareto,
    )


def _run_tune(
    cfg: RecipeConfig,
    space: SearchSpace,
    folder: Path,
    book: TrialBook,
    at_once: int,
    resume: bool,
    live: LiveFeed,
    tracker: Tracker,
    parent: TrackedRun,
    teaching: Teaching | None,
    rule: Stopping,
    first: FirstTrials,
) -> None:
    """Runs Tune's loop to its end. Raises: KeyboardInterrupt when people ended it before its time."""

    def yaml_of(values: Mapping[str, Any]) -> str:
        return to_yaml(with_values(cfg, space.settled(values), "trial"))

    left = cfg.sweep.trials - sum(trial.end != "running" for trial in book.trials)
    reserve = Reserve(left, lambda: fill_up(cfg.ray.num_workers, worker_resources(cfg)))
    steering = Steering(folder, book, live.say, at_once=lambda: tracker.end_open_runs("KILLED"))
    watch = SweepWatch(book, space, tracker, parent, live, folder, yaml_of, reserve, teaching, steering)
    if resume:
        watch.close_unwritten()
    feed = Queue(maxsize=1000, actor_options={"num_cpus": 0})
    trainable = tune.with_resources(
        tune.with_parameters(
            run_trial,
            config=to_plain(cfg),
            sweep=folder.name,
            storage=str(folder.parent),
            feed=feed,
            space=space,
            teaching=teaching,
        ),
        {"CPU": TRIAL_CPU},
    )
    domains = space.to_tune()
    with (
        _interrupting(tracker),
        _quiet_tune(folder),
        _signals_given_back(),
        _relayed(feed, live, watch, reserve, steering),
        steered(steering, saved=lambda: keep(folder)),
    ):
        tune.run(
            trainable,
            name=TUNES_FOLDER,
            storage_path=str(folder),
            config={key: domains[key] for key in space.varied},
            num_samples=cfg.sweep.trials,
            metric=OBJECTIVE if cfg.sweep.against is None else None,
            mode="max" if cfg.sweep.against is None else None,
            search_alg=build_searcher(cfg.sweep, first.points, at_once),
            scheduler=build_scheduler(rule, first.control, past_reports(folder, book)),
            callbacks=[watch],
            stop=steering,
            verbose=0,
            raise_on_failed_trial=False,
            max_failures=cfg.ray.max_failures,  # of a trial's own process; its workers are restarted by Ray Train
            trial_name_creator=_trial_id,
            trial_dirname_creator=_trial_id,
            resume_config=_resume_config(folder) if resume else None,
        )
    watch.close_lost()
    best = best_trial(book.trials)
    if best is not None and not best.hmean:
        live.say(f"val: no trial found anything; the best one: {watch.diagnosis_of(best.trial_id)}")


def resume_line(folder: Path, space: str) -> str:
    """What to type to go on with the sweep in `folder`, from anywhere."""
    if not Path(space).is_file():
        return f"--name {folder.name} --resume"
    words = ("ocr-ray", "tune", str(folder / CONFIG_FILE), str(Path(space).resolve()), "--name", folder.name)
    return shlex.join((*words, "--resume"))


def _trial_id(trial: tune.experiment.Trial) -> str:
    return str(trial.trial_id)


def _resume_config(folder: Path) -> tune.ResumeConfig | None:
    """None where the sweep was ended before Tune had written anything down: it then starts afresh."""
    if not put_back(folder):
        return None
    resume = tune.ResumeConfig.ResumeType.RESUME
    return tune.ResumeConfig(unfinished=resume, errored=resume)  # type: ignore[arg-type]  # says str, checks the enum


def _take_up(book: TrialBook, name: str) -> None:
    """Raises: RunError when the search space is another one than that of the trials so far."""
    before, now = book.load(), book.identity
    odd = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if odd:
        raise RunError(
            f"{name}: was started with {odd[0]} {before.get(odd[0], 'not searched')}, now it is "
            f"{now.get(odd[0], 'not searched')}: another space needs a --name of its own"
        )


def _trials_at_once(cfg: RecipeConfig, live: LiveFeed, plan: TeachingPlan | None) -> int:
    """As many as the settings and the cluster allow. Raises: ClusterError."""
    beside = plan.resources() if plan is not None else []
    room = room_for_trials(cfg.ray.num_workers, worker_resources(cfg), beside)
    check_state_api()
    at_once = min(room, cfg.sweep.trials, cfg.sweep.max_concurrent or room)
    live.say(
        f"sweep: {cfg.sweep.trials} trials, {at_once} at a time" + (f" (room for {room})" if room > at_once else "")
    )
    return at_once


def _raise_all_failed(name: str, trials: list[TrialSummary]) -> NoReturn:
    first = next((f"trial {t.number}: {t.reason}" for t in trials if t.reason), "no trial has kept any weights")
    raise RunError(f"{name}: no trial came through: {first}")


@contextlib.contextmanager
def _relayed(feed: Queue, live: LiveFeed, watch: SweepWatch, reserve: Reserve, steering: Steering) -> Iterator[None]:
    """Shows the workers' signs of life while the block runs, since Tune's loop has this thread."""
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

    thread = threading.Thread(target=relay, name="relay", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)


@contextlib.contextmanager
def _interrupting(tracker: Tracker) -> Iterator[None]:
    """Turns the end of the loop that people asked for into an interrupt, as of Ctrl-C."""
    try:
        yield
    except SweepStopped:
        tracker.end_open_runs("KILLED")
        raise KeyboardInterrupt from None


@contextlib.contextmanager
def _signals_given_back() -> Iterator[None]:
    """Tune keeps SIGINT, and the watch SIGTERM, after the loop has ended."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


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
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
        handler.close()
