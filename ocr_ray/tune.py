"""Ray Tune around Ray Train: a sweep is many training runs, of which a scheduler ends the poor ones early.

The driver runs Tune's loop and alone writes: to MLflow, to the sweep's books, to the terminal. Each trial is a small
process that starts a training run of its own, whose workers hold the CPUs and GPUs.
"""

import contextlib
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ocr_ray.config import RecipeConfig, to_yaml, with_paths_resolved
from ocr_ray.confirm.decide import decide
from ocr_ray.confirm.room import BudgetLeft
from ocr_ray.confirm.runs import Confirmed, confirmed_so_far
from ocr_ray.driver import Driver
from ocr_ray.errors import ConfigError, RunError
from ocr_ray.mlflow_store import store_uri
from ocr_ray.progress import LiveFeed
from ocr_ray.record import Recorder
from ocr_ray.report.at_end import report_at_end
from ocr_ray.search import requests
from ocr_ray.search.cost import CostEstimate
from ocr_ray.search.disk import DiskNeed, disk_need, must_have_room
from ocr_ray.search.first import first_trials
from ocr_ray.search.history import ranks_of
from ocr_ray.search.loop import TuneLoop
from ocr_ray.search.notes import device_hours_of
from ocr_ray.search.placement import check_state_api, room_for_trials
from ocr_ray.search.population import check_population, must_run_at_once
from ocr_ray.search.room import Cost, KeptRoom, RunTimes, runs_of
from ocr_ray.search.schedulers import stopping_notes
from ocr_ray.search.searchers import searcher_notes
from ocr_ray.search.stopping import stopping
from ocr_ray.search.student import check_start_fits
from ocr_ray.search.trials import TrialBook, TrialSummary, best_trial, pareto_set
from ocr_ray.search.warm import WarmStart, find_earlier, keep_warm, kept_warm
from ocr_ray.session import connected
from ocr_ray.spaces import SearchSpace
from ocr_ray.start import say_if_below_start, start_metrics
from ocr_ray.stopwatch import HOUR_S, Stopwatch
from ocr_ray.sweep_result import SweepResult, write_result
from ocr_ray.teaching.gpu_need import with_gpu_share
from ocr_ray.teaching.sharing import TeachingPlan, open_teaching, plan_teaching
from ocr_ray.train import CONFIG_FILE, announce, check_name, make_folder, open_tracker, put_down, worker_resources
from ocr_ray.typed import with_values


def sweep(
    cfg: RecipeConfig,
    space: SearchSpace,
    name: str | None = None,
    resume: bool = False,
    live: LiveFeed | None = None,
    warm_start: Sequence[str] = (),
) -> SweepResult:
    """Searches `space` around `cfg` by the settings of `cfg.sweep`, and keeps the best trial's best student.

    Args: name is the sweep's folder in `ray.storage`, by default recipe and time; resume goes on with the sweep of
        that name: ended trials stay as they are, others go on from their checkpoints; live shows the trials, by
        default on standard error; warm_start names earlier sweeps (in the storage, or MLflow's id of a parent) whose
        comparable trials the searcher learns from; a resume goes on with those of its start.
    Raises: RunError when the name is taken, there is nothing to resume, or every trial failed; ClusterError when no
        trial can ever be placed; ConfigError, DataError and WeightsError for what the config names;
        KeyboardInterrupt after Ctrl-C, SIGTERM or `ocr-ray stop`, with the state saved for a resume.
    """
    began = time.monotonic()
    if warm_start and cfg.sweep.against is not None:
        raise ConfigError(
            f"--warm-start: expected no sweep.against, found {cfg.sweep.against}: earlier trials tell of hmean alone"
        )
    cfg = with_paths_resolved(with_values(cfg, space.fixed, space.source), Path.cwd())
    first = first_trials(cfg, space)
    cfg = with_values(cfg, {"sweep.trials": first.trials}, "grid")
    if cfg.sweep.scheduler == "pbt":
        check_population(cfg, space)
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
        built = announce(cfg, live)
        driver = stack.enter_context(Driver())
        check_start_fits(cfg, space)
        stack.enter_context(connected(cfg.ray))
        plan = plan_teaching(cfg, space.varied, live)
        cfg = with_gpu_share(cfg, plan, live)
        at_once = _trials_at_once(cfg, live, plan)
        rule = stopping(cfg.sweep, cfg.optim.epochs, cfg.eval.every_epochs)
        for line in (*first.notes, *searcher_notes(cfg.sweep, space), *stopping_notes(cfg, rule)):
            live.say(line)
        confirmed = confirmed_so_far(folder, cfg)
        to_confirm = max(0, runs_of(cfg.sweep, cfg.sweep.confirm) - confirmed.runs)
        to_try = cfg.sweep.trials - len(book.trials)
        need = disk_need(built.model, to_try, at_once, rule.rule == "pbt", to_confirm)
        must_have_room(folder, need)
        recorder = Recorder()
        record = recorder.of(cfg)
        uri = store_uri(cfg.tracking.uri, storage)
        found = WarmStart(kept_warm(folder)) if resume else find_earlier(warm_start, cfg, space, record, storage, uri)
        for line in found.lines:
            live.say(line)
        tracker = stack.enter_context(open_tracker(cfg, folder, live))
        make_folder(cfg, folder)
        driver.take(folder, "sweep", resume_line(folder, space.source))
        if found.trials:
            keep_warm(folder, found.trials)
        parent = tracker.run(name, name, tags={"recipe": cfg.recipe, "search_space": space.source, **record.tags()})
        parent.text(to_yaml(cfg), CONFIG_FILE)
        put_down(record, folder, parent, live)
        if found.lines:
            parent.tags({"warm_start": "\n".join(found.lines)})
        start = start_metrics(cfg, folder, live)
        parent.metrics(start, step=0)
        teaching = None
        if plan is not None:
            teaching = open_teaching(cfg, plan, folder)
            stack.callback(teaching.close)
        watch = Stopwatch(folder)
        cost = _cost(cfg, book, at_once, need, watch, confirmed, first.control is not None)
        workers, times = cfg.ray.num_workers, RunTimes(folder)
        kept = KeptRoom(cfg.sweep, book, times, cfg.optim.epochs, workers, at_once, confirmed.runs)
        loop = TuneLoop(
            cfg,
            space,
            folder,
            book,
            live,
            tracker,
            parent,
            teaching,
            recorder,
            watch,
            kept,
            confirmed.device_seconds,
        )
        try:
            ended = loop.run(first, rule, found, cost, at_once, resume)
        except KeyboardInterrupt:
            live.say(f"sweep: stopped; `--name {name} --resume` goes on with it")
            raise
        finally:
            watch.save()
        if ended:
            live.say(f"sweep: ended: {ended}; {len(book.trials)} of {cfg.sweep.trials} trials were started")
        parent.tags({"ended": ended or "all trials"})
        taught = teaching.stats() if teaching is not None else None
        if taught is not None:
            live.say(taught.one_line())
        ranks = ranks_of(folder, book, rule.rungs)
        parent.metrics({**(taught.metrics() if taught is not None else {}), **ranks.metrics()}, len(book.trials) + 1)
        for line in ranks.lines():
            live.say(line)
        best = best_trial(book.trials)
        if best is None or best.hmean is None:
            _raise_all_failed(name, book.trials)
        parent.tags({"best_trial": str(best.number), "best_trial_id": best.trial_id})
        if teaching is not None:
            teaching.close()  # what follows may want its room
        device_s = device_hours_of(book.trials, workers) * HOUR_S + confirmed.device_seconds
        left = BudgetLeft(
            cfg.sweep,
            storage,
            Cost(watch.seconds, device_s),
            times.mean(book.trials),
            at_once,
            workers,
            resume_line(folder, space.source),
        )
        try:
            decision = decide(cfg, space, folder, book.trials, best, live, tracker, parent, watch, left)
        except KeyboardInterrupt:
            live.say(f"sweep: stopped; `--name {name} --resume` goes on with it")
            raise
        finally:
            watch.save()
        requests.done(folder)  # one that came too late to stop anything
        parent.artifact(decision.weights.parent, "best")
        say_if_below_start(decision.hmean, start, live)
        pareto = None
        if cfg.sweep.against is not None:
            pareto = tuple(pareto_set(book.trials, cfg.sweep.against))
            numbers = ", ".join(str(trial.number) for trial in pareto)
            parent.tags({"pareto_trials": numbers})
            live.say(f"Pareto set of hmean against {cfg.sweep.against}, the cheapest first: trials {numbers}")
        report = report_at_end(folder, live.say)
        if report is not None:
            parent.artifact(report)
    result = SweepResult(
        name,
        folder,
        decision.hmean,
        decision.weights,
        best,
        tuple(book.trials),
        tracker.ui_line,
        time.monotonic() - began,
        taught,
        ranks,
        decision.confirmation,
        decision.tested,
        pareto,
    )
    write_result(result)
    return result


def _cost(
    cfg: RecipeConfig,
    book: TrialBook,
    at_once: int,
    disk: DiskNeed,
    watch: Stopwatch,
    confirmed: Confirmed,
    has_control: bool,
) -> CostEstimate:
    left = cfg.sweep.trials - sum(trial.end != "running" for trial in book.trials)
    workers = cfg.ray.num_workers
    device_s = device_hours_of(book.trials, workers) * HOUR_S + confirmed.device_seconds
    return CostEstimate(
        cfg.sweep,
        left,
        at_once,
        workers,
        disk.in_all,
        watch.seconds,
        device_s,
        confirmed.runs,
        disk.of_confirmation,
        "trial 1" if has_control else "",
    )


def resume_line(folder: Path, space: str) -> str:
    """What to type to go on with the sweep in `folder`, from anywhere."""
    if not Path(space).is_file():
        return f"--name {folder.name} --resume"
    words = ("ocr-ray", "tune", str(folder / CONFIG_FILE), str(Path(space).resolve()), "--name", folder.name)
    return shlex.join((*words, "--resume"))


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
    if cfg.sweep.scheduler == "pbt":
        must_run_at_once(cfg.sweep.trials, at_once)
    live.say(
        f"sweep: {cfg.sweep.trials} trials, {at_once} at a time" + (f" (room for {room})" if room > at_once else "")
    )
    return at_once


def _raise_all_failed(name: str, trials: list[TrialSummary]) -> NoReturn:
    failed = (f"trial {t.number}: {t.reason}" for t in trials if t.end == "failed" and t.reason)
    first = next(failed, "no trial has kept any weights")
    raise RunError(f"{name}: no trial came through: {first}")
