"""The driver's side: opens the desk of a sweep, and says what it is going to do, or why not."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch

from ocr_ray.config import CMLConfig, RecipeConfig
from ocr_ray.engine.teacher_store import TeacherStore, Turns
from ocr_ray.progress import LiveFeed
from ocr_ray.recipes import read_train
from ocr_ray.session import gpus_in_cluster
from ocr_ray.teaching.client import SharedTeacher
from ocr_ray.teaching.desk import TeacherDesk, TeachingStats
from ocr_ray.teaching.identity import answers_digest, why_not_shared
from ocr_ray.teaching.producer import build_teacher
from ocr_ray.typed import to_plain

STORE_FOLDER = "teacher"
"""In a sweep's storage, shared by all sweeps in it."""


@dataclass(frozen=True)
class Teaching:
    """An open desk, and what a worker has to know to use it."""

    desk: Any
    place: str
    digest: str
    producers: int
    options: dict[str, float]
    """Resources of each producer."""

    def ended(self, trial: str) -> None:
        """Tells the desk that a trial needs nothing more."""
        self.desk.ended.remote(trial)

    def stats(self) -> TeachingStats:
        """What the answers took and saved so far."""
        stats: TeachingStats = ray.get(self.desk.stats.remote())
        return stats


def open_teaching(cfg: RecipeConfig, varied: Iterable[str], live: LiveFeed) -> Teaching | None:
    """A desk in the connected cluster for the trials of a sweep; None where each trial has to have its own teacher.

    Raises: ConfigError, DataError, WeightsError as the config's teacher and data.
    """
    if not isinstance(cfg, CMLConfig) or not cfg.teacher.shared:
        return None
    reason = why_not_shared(cfg, varied)
    if reason is not None:
        live.say(f"teacher: not shared, each trial runs its own: {reason}")
        return None
    gpu = cfg.ray.use_gpu or (cfg.ray.use_gpu is None and gpus_in_cluster() > 0)
    digest = answers_digest(cfg, read_train(cfg), "cuda" if gpu else "cpu")
    place = cfg.teacher.store or str(Path(cfg.ray.storage) / STORE_FOLDER)
    producers = cfg.teacher.producers or max(1, gpus_in_cluster() // 8 if gpu else 1)
    options = {"num_cpus": 0.0, "num_gpus": cfg.teacher.gpus_per_producer if gpu else 0.0}
    store = TeacherStore(place, digest)
    held = sum(store.sizes().values())
    live.say(
        f"teacher: looks at each picture once for all trials (teacher.shared); its answers lie in {place}/{digest}"
        + (f", where {held / 2**20:.1f} MiB of them are already" if held else "")
    )
    limit = cfg.teacher.store_mib * 2**20
    desk = TeacherDesk.remote(  # type: ignore[attr-defined]  # as ray.remote leaves it
        to_plain(cfg), place, digest, limit, producers, options
    )
    return Teaching(desk, place, digest, producers, options)


def shared_teacher(teaching: Teaching, cfg: CMLConfig, trial: str, num_samples: int, world_size: int) -> SharedTeacher:
    """A worker's way to the answers, which `engine.loop.Training` takes.

    Args: cfg is the trial's; num_samples is the number of its training pictures.
    """
    pictures = cfg.optim.epochs * (cfg.data.epoch_size or num_samples)
    turns = Turns(cfg.run.seed, num_samples)
    return SharedTeacher(
        teaching.desk,
        trial,
        TeacherStore(teaching.place, teaching.digest),
        turns,
        share=1 / world_size,
        last=turns.piece_at(pictures - 1),
        ahead=2 * teaching.producers,
        alone=lambda: build_teacher(cfg, torch.device("cuda" if torch.cuda.is_available() else "cpu")),
    )
