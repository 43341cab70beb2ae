"""Ray Train around the loop: `train(cfg)` places the workers, shows and records what they report, and resumes.

The driver builds a `TorchTrainer`; its controller process starts the workers and restarts them from the last
checkpoint when one is lost; each worker runs `worker.train_worker`.
"""

import contextlib
import os
import shlex
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.train import UserCallback
from ray.util.queue import Empty, Queue

from ocr_ray.config import (
    RecipeConfig,
    decides_numbers,
    load_config,
    to_yaml,
    with_paths_resolved,
)
from ocr_ray.data.check import check_samples
from ocr_ray.driver import Driver, must_be_alone, read_note
from ocr_ray.errors import ClusterError, ConfigError, DataError, RunError
from ocr_ray.files import write_text
from ocr_ray.held_out import evaluate_on_test
from ocr_ray.mlflow_store import store_uri
from ocr_ray.prestart import WORKER_MARK
from ocr_ray.progress import LiveFeed, ProgressEvent
from ocr_ray.recipes import BuiltModel, build_model, read_keep, read_test, read_train, read_val
from ocr_ray.record import RECORD_FILE, Recorder, RunRecord, keep_record
from ocr_ray.reports import append_report, read_reports
from ocr_ray.session import connected, gpus_in_cluster
from ocr_ray.start import say_if_below_start, start_metrics
from ocr_ray.stopwatch import Stopwatch, device_hours
from ocr_ray.teaching.sharing import Teaching
from ocr_ray.tracking import LEDGER_FILE, TrackedRun, Tracker
from ocr_ray.typed import flatten
from ocr_ray.unsent import UNSENT_FILE
from ocr_ray.weights.coverage import coverage_table
from ocr_ray.worker import (
    DIAGNOSIS,
    FAILED_PICTURES,
    STOPPED,
    UNREADABLE_VAL,
    arguments_for,
    raise_if_stopped,
    train_worker,
)

CONFIG_FILE = "config.yaml"
MAY_CHANGE = (
    *("sweep.confirm", "sweep.seeds", "sweep.max_hours", "sweep.max_device_hours"),
    *("sweep.plateau_trials", "sweep.plateau_margin", "sweep.max_failed"),
)
"""Keys that a sweep reads when its trials have ended, or that bound it: a resume may bring others."""
CHECKPOINTS_KEPT = 2
"""Of a run: the last one, and the best one beside it."""


@dataclass(frozen=True)
class TrainResult:
    """A finished run. `best` is the better student's safetensors file; its metadata lie beside it as JSON."""

    name: str
    folder: Path
    hmean: float
    best: Path
    epochs: int


def train(
    cfg: RecipeConfig,
    name: str | None = None,
    resume: bool = False,
    live: LiveFeed | None = None,
    tags: Mapping[str, str] = MappingProxyType({}),
) -> TrainResult:
    """Trains one recipe and keeps the better student.

    Args: name is the run's folder in `ray.storage`, by default recipe and time; resume goes on with the run of that
        name from its last checkpoint, and gives the result of one that had ended; live shows the run, by default on
        standard error; tags are further ones of its MLflow run.
    Raises: RunError when the name is taken, there is nothing to resume, or the run failed; ClusterError when the
        cluster can never place it; ConfigError, DataError and WeightsError for what the config names.
    """
    cfg = with_paths_resolved(cfg, Path.cwd())
    storage = Path(cfg.ray.storage)
    name = name or f"{cfg.recipe}-{time.strftime('%Y%m%d-%H%M%S')}"
    check_name(cfg, storage / name, resume)
    with contextlib.ExitStack() as stack:
        if live is None:
            live = stack.enter_context(LiveFeed())
        live.stage(f"train {cfg.recipe}")
        announce(cfg, live)
        driver = stack.enter_context(Driver())
        stack.enter_context(connected(cfg.ray))
        must_fit(cfg)
        tracker = stack.enter_context(open_tracker(cfg, storage / name, live))
        folder = make_folder(cfg, storage / name)
        resume_line = ("ocr-ray", "train", str(folder / CONFIG_FILE), "--name", name, "--resume")
        driver.take(folder, "run", shlex.join(resume_line))
        record = Recorder().of(cfg)
        run = tracker.run(name, name, tags={"recipe": cfg.recipe, **record.tags(), **tags})
        run.text(to_yaml(cfg), CONFIG_FILE)
        put_down(record, folder, run, live)
        watch = Stopwatch(folder)
        start = start_metrics(cfg, folder, live)
        run.metrics(start, step=0)
        last = None
        for last in read_reports(folder):
            run.report(last)  # workers may have finished epochs of which a driver that was killed has not heard
        if last is None or last["epoch"] < cfg.optim.epochs:
            live.put(ProgressEvent(name, "starting", epochs=cfg.optim.epochs))
            feed = Queue(maxsize=1000, actor_options={"num_cpus": 0})
            trainer = build_trainer(cfg, name, storage, [_Forward(feed, folder)], feed)
            last = _watch(trainer, feed, live, run, folder, cfg.ray.num_workers, watch)
        best = Path(last["best_path"])
        run.artifact(best.parent, "best")
        live.put(ProgressEvent(name, "done", hmean=last["hmean.best"]))
        if last[DIAGNOSIS] and not last["hmean.best"]:
            run.tags({"diagnosis": last[DIAGNOSIS]})
            live.say(f"val: hmean 0: {last[DIAGNOSIS]}")
        say_if_below_start(last["hmean.best"], start, live)
        if cfg.data.test:
            tested = evaluate_on_test(cfg, folder, {"winner": (name, best)}, live)
            run.finals(tested.metrics())
            live.say(tested.one_line())
        live.say(f"runs to compare: {tracker.ui_line}")
    return TrainResult(name, folder, last["hmean.best"], best, last["epoch"])


def finished_run(cfg: RecipeConfig, folder: Path) -> TrainResult | None:
    """What `train` gave for the run in `folder`; None where it has not come to its end, its weights are gone, or MLflow
    has not heard of all of it, which `train` with `resume` tells.

    Workers may finish the last epoch after their driver was killed, which then has not written it to MLflow: no end.
    """
    note = read_note(folder)
    if note is None or note.ended != "finished" or (folder / UNSENT_FILE).exists():
        return None
    last = next(reversed(list(read_reports(folder))), None)
    if last is None or last["epoch"] < cfg.optim.epochs or not Path(last["best_path"]).exists():
        return None
    return TrainResult(folder.name, folder, last["hmean.best"], Path(last["best_path"]), last["epoch"])


def build_trainer(
    cfg: RecipeConfig,
    name: str,
    storage: Path,
    callbacks: list[UserCallback] | None = None,
    feed: Queue | None = None,
    stage: str = "",
    label: str = "",
    teaching: Teaching | None = None,
    donor: str = "",
) -> ray.train.torch.TorchTrainer:
    """A trainer whose run lives in `storage / name`; one of the same name goes on from its last checkpoint.

    Args: feed takes rank 0's `ProgressEvent`s under `label` (by default `name`) and `stage`; teaching is where a CML
        run reads its teacher's answers; donor is the folder of another run's checkpoint that this one goes on from.
    """
    return ray.train.torch.TorchTrainer(
        train_worker,
        train_loop_config=arguments_for(cfg, storage / name, label or name, stage, feed, teaching, donor),
        torch_config=ray.train.torch.TorchConfig(),  # NCCL where workers have GPUs, gloo elsewhere
        scaling_config=scaling(cfg),
        # Type checkers see the first generation of these classes, runs get the second.
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]
            name=name,
            storage_path=str(storage),
            callbacks=callbacks or [],  # type: ignore[arg-type]
            # The last one is always kept; the score keeps the best one beside it.
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=CHECKPOINTS_KEPT, checkpoint_score_attribute="hmean"
            ),
            failure_config=ray.train.FailureConfig(  # type: ignore[call-arg]
                max_failures=cfg.ray.max_failures, controller_failure_limit=3
            ),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
            worker_runtime_env={"env_vars": WORKER_MARK},
        ),
    )


def scaling(cfg: RecipeConfig) -> ray.train.ScalingConfig:
    """What one run asks of the connected cluster, with what the config leaves open filled in."""
    resources = worker_resources(cfg)
    return ray.train.ScalingConfig(
        num_workers=cfg.ray.num_workers, use_gpu="GPU" in resources, resources_per_worker=resources
    )


def worker_resources(cfg: RecipeConfig) -> dict[str, float]:
    """Of one worker of a run: a GPU where the config asks for one, or where it says nothing and the cluster has any."""
    resources = {"CPU": 1.0 if cfg.ray.cpus_per_worker is None else cfg.ray.cpus_per_worker}
    if cfg.ray.use_gpu or (cfg.ray.use_gpu is None and gpus_in_cluster()):
        resources["GPU"] = 1.0 if cfg.ray.gpus_per_worker is None else cfg.ray.gpus_per_worker
    return resources


def must_fit(cfg: RecipeConfig) -> None:
    """Raises: ClusterError when the connected cluster, even empty, could not hold one run of this config."""
    for resource, amount in worker_resources(cfg).items():
        alive = [node["Resources"].get(resource, 0.0) for node in ray.nodes() if node["Alive"]]
        room = sum(int(has / amount + 1e-9) for has in alive)
        if room < cfg.ray.num_workers:
            raise ClusterError(
                f"ray.num_workers={cfg.ray.num_workers} of {amount:g} {resource} each can never be placed: "
                f"the cluster has {sum(alive):g} {resource} on {len(alive)} node"
                f"{'s' * (len(alive) != 1)}, room for {room}"
            )


def check_name(cfg: RecipeConfig, folder: Path, resume: bool) -> None:
    """Raises: RunError when the name is taken, when there is nothing to resume or another process still works on it, or
    when it was another config; ConfigError for a storage that cannot be."""
    there = next(parent for parent in (folder.parent, *folder.parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(f"ray.storage: {cfg.ray.storage}: no folder can be made in {there}")
    recorded = folder / CONFIG_FILE
    if not resume:
        if folder.exists():
            raise RunError(f"{folder}: is there already: add --resume to go on with it, or choose another --name")
        return
    if not recorded.exists():
        raise RunError(f"{folder}: no run to resume here")
    must_be_alone(folder)
    now, before = flatten(cfg), flatten(load_config(recorded))
    searched = [key for key in now if decides_numbers(key) or (key.startswith("sweep.") and key not in MAY_CHANGE)]
    odd = [key for key in searched if now[key] != before.get(key)]
    if odd:
        raise RunError(
            f"{folder.name}: was started with {odd[0]}={before.get(odd[0])}, now it is {now[odd[0]]}: "
            f"a changed run needs a --name of its own"
        )


def make_folder(cfg: RecipeConfig, folder: Path) -> Path:
    """The run's folder with its whole config, and without the mark of a mistake that has been mended."""
    write_text(folder / CONFIG_FILE, to_yaml(cfg))
    (folder / STOPPED).unlink(missing_ok=True)
    return folder


def put_down(record: RunRecord, folder: Path, run: TrackedRun, live: LiveFeed) -> None:
    """Keeps the record of a run or sweep in its folder and beside it in MLflow; says what a resume finds changed."""
    changed = keep_record(folder, record)
    if changed:
        run.tags({"resumed_with": "\n".join(changed)})
    else:
        run.text(record.to_json(), RECORD_FILE)
    for line in changed:
        live.say(f"note: not as at its start: {line}")


def announce(cfg: RecipeConfig, live: LiveFeed) -> BuiltModel:
    """Reads weights and labels as the workers will, and says in short what they hold. Returns: the nets.

    Raises: WeightsError, DataError and ConfigError, so that a mistake costs no worker's start.
    """
    built = build_model(cfg)
    if built.coverage:
        live.console.print(coverage_table(built.coverage))
    for note in built.notes:
        live.say(f"note: {note}")
    train, val, keep, test = read_train(cfg), read_val(cfg), read_keep(cfg), read_test(cfg)
    report = check_samples(train, val, keep, test)
    live.say(f"data: {report.one_line()}")
    unreadable = report.unreadable()
    allowed = cfg.data.max_failed
    for name, samples, share in (
        ("train", train, allowed),
        ("val", val, 1.0),
        ("keep", keep, 1.0),
        ("test", test, 1.0),
    ):
        if not samples:
            continue
        missing = [s for s in samples if (s.name or str(s.image)) in unreadable]
        if len(missing) > share * len(samples) or len(missing) == len(samples):
            raise DataError(
                f"data.{name}: {len(missing)} of {len(samples)} pictures cannot be read, the first: "
                f"{missing[0].image}; are the labels' paths relative to another folder (data.root)?"
            )
    return built


def open_tracker(cfg: RecipeConfig, folder: Path, live: LiveFeed) -> Tracker:
    """MLflow's writer for a run or sweep in `folder`, whose runs it goes on with on a resume."""
    storage = Path(cfg.ray.storage)
    return Tracker(
        store_uri(cfg.tracking.uri, storage),
        cfg.tracking.experiment,
        artifacts=storage / "mlartifacts",
        ledger=folder / LEDGER_FILE,
        say=live.say,
    )


class _Forward(UserCallback):
    """In the controller: writes each report down, for a later driver, and hands it on to this one, which shows it and
    alone writes to MLflow."""

    def __init__(self, feed: Queue, folder: Path) -> None:
        self._feed, self._folder = feed, folder

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: ray.train.Checkpoint | None
    ) -> None:
        append_report(self._folder, metrics[0])
        with contextlib.suppress(ray.exceptions.RayError):  # a driver that is gone reads it from the folder
            self._feed.put(metrics[0])


def _watch(
    trainer: ray.train.torch.TorchTrainer,
    feed: Queue,
    live: LiveFeed,
    run: TrackedRun,
    folder: Path,
    workers: int,
    watch: Stopwatch,
) -> dict[str, Any]:
    """Runs the trainer and passes on its news until it ends. Returns: the last report."""
    failed: list[BaseException] = []

    def fit_in_background() -> None:
        try:
            trainer.fit()
        except BaseException as e:
            failed.append(e)

    # In a thread, so that Ctrl-C reaches this one, and what is open here is closed in order.
    fitting = threading.Thread(target=fit_in_background, name="trainer", daemon=True)
    fitting.start()
    last: dict[str, Any] | None = None
    told: set[str] = set()
    while True:
        ending = not fitting.is_alive()
        try:
            news = feed.get(timeout=0.5)
        except Empty:
            if ending:
                break
            continue
        except ray.exceptions.RayError:  # the queue was on a machine that is gone; what it held is in the folder
            fitting.join()
            for news in read_reports(folder):
                last = news
                run.report(news)
            break
        if isinstance(news, ProgressEvent):
            live.put(news)
        else:
            last = news
            run.report({**news, **device_hours(news, workers, watch.seconds)})
            watch.save()
            for line in spoken(news, told):
                live.say(line)
    raise_if_stopped(folder)
    if failed:
        raise RunError(f"{folder.name}: {reason(failed[0])}") from failed[0]
    if last is None:
        raise RunError(f"{folder.name}: ended without a report")
    return last


def spoken(report: Mapping[str, Any], told: set[str]) -> list[str]:
    """Lines for a person about an epoch's data and evaluation, but for those that were `told` before."""
    lines = [f"data: left out and replaced: {failure}" for failure in report.get(FAILED_PICTURES, ())]
    lines += [f"val: left out: {failure}" for failure in report.get(UNREADABLE_VAL, ())]
    if report.get(DIAGNOSIS) and DIAGNOSIS not in told:  # once: its numbers move with every epoch
        told.add(DIAGNOSIS)
        lines.append(f"val: hmean 0 after epoch {report['epoch']}: {report[DIAGNOSIS]}")
    new = [line for line in dict.fromkeys(lines) if line not in told]
    told.update(new)
    return new


def reason(error: BaseException) -> str:
    """What went wrong in a worker, in one line, from under the layers that Ray wraps around it."""
    if isinstance(error, ray.train.WorkerGroupError) and error.worker_failures:
        rank, inner = next(iter(error.worker_failures.items()))
        return f"worker {rank}: {reason(inner)}"
    if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, BaseException):
        return reason(error.cause)
    if isinstance(error, ray.train.ControllerError):
        return reason(error.controller_failure)
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1] if isinstance(error, ray.exceptions.RayTaskError) else lines[0]}"
