"""The driver's side: what a sweep is going to do about its teacher, or why not, and the desk that does it."""

import contextlib
import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch

from ocr_ray.config import CMLConfig, RecipeConfig
from ocr_ray.engine.loop import NEW_PARTS_EPOCH
from ocr_ray.engine.teacher_store import TeacherStore, Turns
from ocr_ray.errors import ConfigError
from ocr_ray.files import write_text
from ocr_ray.progress import LiveFeed
from ocr_ray.recipes import read_train
from ocr_ray.session import gpus_in_cluster
from ocr_ray.teaching.client import SharedTeacher
from ocr_ray.teaching.desk import TeacherDesk, TeachingStats
from ocr_ray.teaching.identity import answers_digest, teacher_threads, why_not_shared
from ocr_ray.teaching.producer import build_teacher
from ocr_ray.typed import to_plain

TEACHER_FILE = "teacher.json"
"""In a sweep's folder: what its teacher's answers took and saved, as its run records it."""
STORE_FOLDER = "teacher-answers"
"""In a sweep's storage, shared by all sweeps in it. What lies there can be made again."""

STORE_ANSWERS_WITHIN_S = 60.0
ANSWERS_WITHIN_S = 5.0
"""The desk's loop waits for no teacher; one that takes longer is on a machine that is lost."""


@dataclass(frozen=True)
class TeachingPlan:
    """Where the answers lie, and who is going to compute them."""

    place: str
    digest: str
    producers: int
    options: dict[str, float]
    """Resources of each producer."""
    threads: int
    turns: int
    """Through the samples, of the longest trial there can be; beyond them lie the pictures that train new parts."""

    @property
    def on_gpu(self) -> bool:
        """Whether producers take a part of a GPU each."""
        return self.options["num_gpus"] > 0

    def resources(self) -> list[dict[str, float]]:
        """What the producers hold as long as the sweep runs, each."""
        return [{"GPU": self.options["num_gpus"]}] * self.producers if self.on_gpu else []


@dataclass(frozen=True)
class Teaching:
    """An open desk. What its answers took and saved is kept in the folder, if there is one, over a sweep's resumes."""

    plan: TeachingPlan
    desk: Any
    folder: Path | None = None
    before: TeachingStats = field(default_factory=TeachingStats)
    """Of earlier desks."""

    def started(self, trial: str) -> None:
        """Tells the desk that a trial is going to need answers."""
        self.desk.started.remote(trial)

    def ended(self, trial: str) -> None:
        """Tells the desk that a trial needs nothing more."""
        self.desk.ended.remote(trial)

    def stats(self) -> TeachingStats | None:
        """What the answers took and saved so far, those of earlier desks included, which is then kept; None where the
        desk is gone."""
        with contextlib.suppress(ray.exceptions.RayError):
            return self._kept(ray.get(self.desk.stats.remote()))
        return None

    def metrics_of(self, trial: str) -> dict[str, float]:
        """What the trial has read and saved so far, as its run records it; nothing where the desk does not answer."""
        with contextlib.suppress(ray.exceptions.RayError):
            metrics: dict[str, float] = ray.get(self.desk.metrics_of.remote(trial), timeout=ANSWERS_WITHIN_S)
            return metrics
        return {}

    def trouble(self) -> str:
        """Why trials compute answers themselves by now; empty where none has to, or the desk does not answer. What
        the answers took and saved so far is kept for a resume."""
        with contextlib.suppress(ray.exceptions.RayError):
            now: TeachingStats = ray.get(self.desk.stats.remote(), timeout=ANSWERS_WITHIN_S)
            self._kept(now)
            return now.reason
        return ""

    def _kept(self, now: TeachingStats) -> TeachingStats:
        stats = self.before.plus(now)
        if self.folder is not None:
            write_text(self.folder / TEACHER_FILE, json.dumps(stats.metrics()))
        return stats

    def close(self) -> None:
        """Ends the desk, and the producers with it."""
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self.desk)


def plan_teaching(cfg: RecipeConfig, varied: Iterable[str], live: LiveFeed) -> TeachingPlan | None:
    """For the trials of a sweep in the connected cluster; None where each trial has to have its own teacher.

    Raises: ConfigError, DataError, WeightsError as the config's teacher, data and `teacher.store`.
    """
    if not isinstance(cfg, CMLConfig) or not cfg.teacher.shared:
        return None
    reason = why_not_shared(cfg, varied)
    if reason is not None:
        live.say(f"teacher: not shared, each trial runs its own: {reason}")
        return None
    gpus, cores = gpus_in_cluster(), int(ray.cluster_resources().get("CPU", 1))
    gpu = gpus > 0 and cfg.ray.use_gpu is not False
    samples, threads = read_train(cfg), teacher_threads(cfg)
    digest = answers_digest(cfg, samples, "cuda" if gpu else "cpu", threads)
    place = cfg.teacher.store or str(Path(cfg.ray.storage) / STORE_FOLDER)
    held = _held(place, digest)
    live.say(
        f"teacher: looks at each picture once for all trials (teacher.shared); its answers lie in {place}/{digest}"
        + (f", where {held / 2**20:.1f} MiB of them are already" if held else "")
    )
    return TeachingPlan(
        place,
        digest,
        producers=cfg.teacher.producers or max(1, gpus // 8 if gpu else cores // 4),
        options={"num_cpus": 0.0, "num_gpus": cfg.teacher.gpus_per_producer if gpu else 0.0},
        threads=threads,
        turns=NEW_PARTS_EPOCH * (cfg.data.epoch_size or len(samples)) // len(samples),
    )


def _held(place: str, digest: str) -> int:
    """Bytes that lie there already. Raises: ConfigError for a place that cannot be written, or that does not answer."""
    answer: list[int | Exception] = []

    def look() -> None:
        try:
            store = TeacherStore(place, digest)
            store.try_out()
            answer.append(sum(store.sizes().values()))
        except Exception as e:
            answer.append(e)

    # Some of pyarrow's file systems try for ever.
    thread = threading.Thread(target=look, daemon=True, name="teacher store")
    thread.start()
    thread.join(STORE_ANSWERS_WITHIN_S)
    match answer:
        case []:
            raise ConfigError(f"teacher.store: {place}: has not answered in {STORE_ANSWERS_WITHIN_S:.0f} s")
        case [OSError() as e]:
            raise ConfigError(f"teacher.store: {place}: cannot be written: {str(e).splitlines()[0]}") from e
        case [Exception() as e]:
            raise e
        case [int(held)]:
            return held
    raise AssertionError(answer)


def open_teaching(cfg: RecipeConfig, plan: TeachingPlan, folder: Path | None = None) -> Teaching:
    """The plan's desk and producers in the connected cluster; `close` ends them.

    Args: folder is where what they took and saved is kept, and perhaps lies already.
    """
    assert isinstance(cfg, CMLConfig)
    limit = cfg.teacher.store_mib * 2**20
    desk = TeacherDesk.remote(  # type: ignore[attr-defined]  # as ray.remote leaves it
        to_plain(cfg), plan.place, plan.digest, limit, plan.turns, plan.producers, plan.options, plan.threads
    )
    return teaching_of(plan, desk, folder)


def teaching_of(plan: TeachingPlan, desk: Any, folder: Path | None) -> Teaching:
    """The plan's desk, which goes on counting from what is kept in the folder, if there is one."""
    kept = folder / TEACHER_FILE if folder is not None else None
    if kept is None or not kept.exists():
        return Teaching(plan, desk, folder)
    return Teaching(plan, desk, folder, TeachingStats.of_metrics(json.loads(kept.read_text())))


def shared_teacher(teaching: Teaching, cfg: CMLConfig, trial: str, num_samples: int, world_size: int) -> SharedTeacher:
    """A worker's way to the answers, which `engine.loop.Training` takes.

    Args: cfg is the trial's; num_samples is the number of its training pictures.
    """
    desk, plan = teaching.desk, teaching.plan
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    turns = Turns(cfg.run.seed, num_samples)
    return SharedTeacher(
        ensure=lambda piece, answers, broken: bool(ray.get(desk.ensure.remote(trial, piece, answers, broken))),
        prepare=desk.prepare.remote,
        tell_live=desk.computed_alone.remote,
        store=TeacherStore(plan.place, plan.digest),
        turns=turns,
        share=1 / world_size,
        last=turns.piece_at(cfg.optim.epochs * (cfg.data.epoch_size or num_samples) - 1),
        ahead=2 * plan.producers,
        alone=lambda: build_teacher(cfg, device),
        kind=device.type,
    )
