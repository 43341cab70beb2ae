"""The actor that computes answers: a teacher, the training pictures, and a place to put pieces."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
import torch
from torch.utils.data import DataLoader, Sampler

from ocr_ray.config import CMLConfig, recipe_from_plain
from ocr_ray.data.batch import Key, collate
from ocr_ray.data.compact import CompactDataset, Loaded, collate_compact
from ocr_ray.data.dataset import TrainDataset
from ocr_ray.data.decoded import decoded_store
from ocr_ray.data.loaders import EndsWith, loader_processes
from ocr_ray.data.on_device import pictures
from ocr_ray.engine.teacher import Teacher, fingerprints_on
from ocr_ray.engine.teacher_store import Answer, BrokenPiece, Piece, TeacherStore, Turns
from ocr_ray.recipes import load_teacher, read_train

BATCH = 8
"""Pictures that go to the device together; the net still sees them one at a time."""


MOST_RESTARTS = 20
"""Of one producer: what kills it so often kills it again, and the trials then ask teachers of their own."""


@dataclass(frozen=True)
class Made:
    """What a piece took. `images` is 0 for one that was there already."""

    images: int = 0
    num_bytes: int = 0
    seconds: float = 0.0
    """Of computing, pictures included."""


class _Asked(Sampler[list[Key]]):
    """The keys of one piece after another, so that the loader's processes live on between them."""

    def __init__(self) -> None:
        self.keys: list[Key] = []

    def __iter__(self) -> Iterator[list[Key]]:
        for start in range(0, len(self.keys), BATCH):
            yield self.keys[start : start + BATCH]

    def __len__(self) -> int:
        return -(-len(self.keys) // BATCH)


def build_teacher(cfg: CMLConfig, device: torch.device) -> Teacher:
    """The frozen teacher of a config. Raises: ConfigError, WeightsError as `load_teacher`."""
    teacher = load_teacher(cfg.teacher)
    return Teacher(
        teacher.net,
        teacher.normalize,
        cfg.loss.distill.threshold,
        device,
        cfg.run.precision,
        cfg.run.channels_last,
        cfg.run.cuda_graphs,
    )


class PieceMaker:
    """Computes pieces of a store on `device`."""

    def __init__(self, cfg: CMLConfig, store: TeacherStore, device: torch.device) -> None:
        samples = read_train(cfg)
        self._store, self._turns = store, Turns(cfg.run.seed, len(samples))
        self._teacher = build_teacher(cfg, device)
        self._asked = _Asked()
        decoded = decoded_store(cfg.data.cache_mib)
        dataset = TrainDataset(samples, cfg.data.augment, None, cfg.run.seed, decoded)
        workers = cfg.data.num_workers if device.type == "cuda" else 0  # on a CPU the teacher is what takes the time
        self._loader: DataLoader[Loaded] = DataLoader(
            CompactDataset(dataset) if cfg.data.on_device else dataset,  # type: ignore[arg-type]  # collated
            batch_sampler=self._asked,
            collate_fn=collate_compact if cfg.data.on_device else collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context=loader_processes() if workers else None,
            worker_init_fn=EndsWith(),
        )

    def make(self, piece: Piece) -> Made:
        """Computes and writes a piece, unless it is there and whole. Raises: DataError, UserError."""
        began = time.monotonic()
        self._asked.keys = self._turns.keys_of(piece)
        try:
            if self._store.read(piece, self._asked.keys) is not None:
                return Made()
        except BrokenPiece:
            pass  # written over below
        answers: list[Answer] = []
        for batch in self._loader:
            bits = self._teacher(pictures(batch, self._teacher.device))
            shown = fingerprints_on(batch, self._teacher.device.type)
            answers += [Answer(picture, its) for picture, its in zip(shown, bits, strict=True)]
        size = self._store.write(piece, self._asked.keys, answers)
        return Made(len(answers), size, time.monotonic() - began)


@ray.remote(max_restarts=MOST_RESTARTS, max_task_retries=MOST_RESTARTS)
class TeacherProducer:
    """`PieceMaker` in a process of its own. One that is killed is started again, and makes its piece once more."""

    def __init__(self, config: dict[str, Any], place: str, digest: str, threads: int) -> None:
        cfg = recipe_from_plain(config, "config")
        assert isinstance(cfg, CMLConfig)
        device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
        torch.set_num_threads(threads)
        self._maker = PieceMaker(cfg, TeacherStore(place, digest), device)

    def make(self, piece: Piece) -> Made:
        """As `PieceMaker.make`."""
        return self._maker.make(piece)
