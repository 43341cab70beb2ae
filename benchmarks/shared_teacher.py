"""What a shared teacher saves: a CML step with stored answers against one with the teacher in it."""

import dataclasses
import time

import torch

from benchmarks.rows import Bench, Row, Subject
from benchmarks.timing import alternate
from ocr_ray.config import CMLConfig
from ocr_ray.data.batch import Batch, collate
from ocr_ray.data.dataset import TrainDataset, turn_order
from ocr_ray.engine.loop import update
from ocr_ray.engine.optim import build_adam
from ocr_ray.engine.teacher import Teacher, fingerprints, prepared, unpacked
from ocr_ray.engine.teacher_store import Answer, Piece, TeacherStore, Turns
from ocr_ray.losses.dila import teacher_target
from ocr_ray.models.detector import Detector, teacher_config
from ocr_ray.models.distillation import CMLTriple, DMLPair
from ocr_ray.typed import with_values

SIDE = 320
BATCH = 4
CPU = torch.device("cpu")


def rows(bench: Bench) -> list[Row]:
    """One row: the nets of the recipe at their full size, on crops of the pictures."""
    crops = {"data.augment.crop_width": SIDE, "data.augment.crop_height": SIDE}
    cfg = with_values(CMLConfig(), crops, "benchmark")
    torch.manual_seed(0)
    teacher = Detector(teacher_config())
    pair = DMLPair(Detector(cfg.student.detector), Detector(cfg.student.detector))
    triple = CMLTriple(pair.Student, pair.Student2, teacher)
    for model in (pair, triple):
        model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_adam(list(pair.parameters()), cfg.optim)

    samples = bench.pictures.samples
    dataset = TrainDataset(samples, cfg.data.augment, cfg.data.targets, cfg.run.seed)
    turns, store = Turns(cfg.run.seed, len(samples)), TeacherStore(str(bench.folder / "teacher"), "bench")
    keys = [(0, int(i)) for i in turn_order(cfg.run.seed, 0, len(samples))[:BATCH]]
    batch = collate([dataset[key] for key in keys])
    piece, answers = Piece(0, 0), Teacher(teacher, cfg.data.normalize, cfg.loss.distill.threshold, CPU)(batch.images)
    pictures = fingerprints(batch.images)
    all_keys = turns.keys_of(piece)
    store.write(piece, all_keys, [Answer(pictures[i % BATCH], answers[i % BATCH]) for i in range(len(all_keys))])

    def live(key: int) -> None:
        _step(triple, optimizer, cfg, batch)

    def shared(key: int) -> None:
        read = store.read(piece, turns.keys_of(piece))  # a whole piece for each step, eight times what a run reads
        assert read is not None
        assert [answer.picture for answer in read[:BATCH]] == fingerprints(batch.images)
        _step(pair, optimizer, cfg, dataclasses.replace(batch, teacher=torch.stack([a.bits for a in read[:BATCH]])))

    rounds = 3 if bench.quick else 8
    seconds = {name: float(s[0]) for name, s in alternate({"live": live, "shared": shared}, 1, rounds, _cpu).items()}
    with torch.no_grad():
        images = prepared(batch.images, cfg.data.normalize, CPU, channels_last=True)
        seen = teacher_target(torch.cat([teacher.shrink_map(image) for image in images.split(1)]), 0.3)  # type: ignore[no-untyped-call]
    exact = torch.equal(unpacked(answers, SIDE, SIDE), seen)
    return [
        Row(
            f"CML training step with shared targets, {SIDE}x{SIDE}, batch {BATCH}, one thread",
            seconds["shared"] / seconds["live"],
            0.25,
            "of the step with the live teacher",
            f"{seconds['shared']:.2f} against {seconds['live']:.2f} CPU-seconds, reading the answers included, least "
            f"of {rounds} alternating; the answers are {'the same bits' if exact else 'DIFFERENT'}",
            1.0,
        )
    ]


def _step(model: CMLTriple | DMLPair, optimizer: torch.optim.Optimizer, cfg: CMLConfig, batch: Batch) -> None:
    images = prepared(batch.images, cfg.data.normalize, CPU, channels_last=True)
    targets = batch.targets.to(CPU)
    if batch.teacher is not None:
        targets = dataclasses.replace(targets, teacher=unpacked(batch.teacher, SIDE, SIDE))
    update(model, optimizer, images, targets, cfg.loss)


def _cpu() -> float:
    return time.process_time()


SUBJECT = Subject("shared_teacher", rows)
