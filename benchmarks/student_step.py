"""A training step of the light student: forward, loss, backward, update; one thread."""

import time

import torch

from benchmarks.rows import Bench, Row, Subject
from benchmarks.timing import alternate
from ocr_ray.config import StudentConfig
from ocr_ray.data.batch import Targets
from ocr_ray.engine.loop import update
from ocr_ray.engine.optim import build_adam
from ocr_ray.recipes import build_model

SIDE = 320
REFERENCE_STEP_S = 0.47
"""CPU seconds of the reference's step, one thread, measured before on a like processor; its nets are in no wheel."""


def rows(bench: Bench) -> list[Row]:
    """One row."""
    cfg = StudentConfig()
    generator = torch.Generator().manual_seed(1)
    model = build_model(cfg).model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_adam(list(model.parameters()), cfg.optim)
    images = torch.randn(1, 3, SIDE, SIDE, generator=generator).contiguous(memory_format=torch.channels_last)
    targets = Targets(*((torch.rand(1, SIDE, SIDE, generator=generator) > 0.7).float() for _ in range(4)))
    rounds = 10 if bench.quick else 40

    def step(key: int) -> None:
        update(model, optimizer, images, targets, cfg.loss, cfg.run.precision, cfg.optim.clip_norm)

    seconds = alternate({"step": step}, 1, rounds, time.process_time)["step"][0]
    return [
        Row(
            "student training step, 320x320, batch 1, one thread",
            float(seconds) / REFERENCE_STEP_S,
            0.25,
            "of the reference's CPU time",
            f"{seconds:.3f} CPU-seconds, least of {rounds}; the reference's {REFERENCE_STEP_S} were measured before on "
            "a processor of this kind, so on another the ratio says little",
        )
    ]


SUBJECT = Subject("student_step", rows)
