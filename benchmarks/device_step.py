"""The training step on a GPU at the recipe's size: pictures a second, share of the card's matrix rate, memory, waiting.

    python -m benchmarks.device_step [--side 960] [--batch 8] [--workers 12] [--out FOLDER]

Each row is a recipe's whole step (forward, losses, backward, update) on a batch that lies on the device. The last rows
are a student's and a pair's epoch with loaders, pictures of JPEG files; they say how much of it was waiting.
Photographs come from where `python -m benchmarks` finds them. The table goes to FOLDER (default: `benchmarks/results`)
as Markdown and JSON, named after the card.
"""

import dataclasses
import gc
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.command import run_command
from benchmarks.machine import describe
from benchmarks.pictures import find_pictures
from ocr_ray.config import CMLConfig, DMLConfig, RecipeConfig, StudentConfig
from ocr_ray.data.batch import Targets
from ocr_ray.data.on_device import on_device
from ocr_ray.engine.graphs import record_graphs
from ocr_ray.engine.loop import update
from ocr_ray.engine.optim import build_adam
from ocr_ray.engine.teacher import prepared
from ocr_ray.errors import UserError
from ocr_ray.files import write_text
from ocr_ray.models.detector import Detector, teacher_config
from ocr_ray.models.distillation import CMLTriple, DMLPair, Single
from ocr_ray.recipes import build_model, build_training
from ocr_ray.typed import with_values

CUDA = torch.device("cuda")
MATRIX = 8192
"""Side of the two matrices whose product is the card's rate."""
Net = Single | DMLPair | CMLTriple
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Figure:
    """A row of the table."""

    step: str
    precision: str
    channels_last: bool
    graphs: bool
    """Replaying CUDA graphs (`run.cuda_graphs`)."""
    ms: float
    """Of a step, median."""
    images_per_s: float
    tflops: float
    """Of the convolutions and matrix products of a step, over its time."""
    share_of_matrix_rate: float
    peak_gib: float
    """Taken from the card at most, weights, optimiser and what graphs keep included."""
    waiting: float | None = None
    """Share of the time that the step waited for its loader; None for a batch that lies on the device."""


def main(
    side: Annotated[int, typer.Option(help="Of the crops, pixels.")] = 960,
    batch: Annotated[int, typer.Option(help="Crops a step.")] = 8,
    workers: Annotated[int, typer.Option(help="Loader processes of the rows with loaders.")] = 12,
    steps: Annotated[int, typer.Option(help="Timed steps of a row, at least 2.", min=2)] = 12,
    out: Annotated[Path, typer.Option(help="The tables go there.")] = Path(__file__).parent / "results",
) -> None:
    """Measures, prints a line a row, and writes the tables."""
    if not torch.cuda.is_available():
        raise UserError("device_step: needs a GPU that this PyTorch can use, found none")
    size = f"{side}x{side}, batch {batch}"
    print(f"{torch.cuda.get_device_name()}; {describe()}; {size}", flush=True)
    rates = {"bf16": matrix_rate(torch.bfloat16), "fp32": matrix_rate(torch.float32)}
    print(f"matrix products: {rates['bf16']:.0f} TFLOP/s in bf16, {rates['fp32']:.0f} in fp32 (TF32)", flush=True)
    figures: list[Figure] = []

    def keep(found: Iterator[Figure]) -> None:
        try:
            for figure in found:
                figures.append(figure)
                print(line(figure), flush=True)
        except torch.OutOfMemoryError as e:
            print(f"out of memory: {str(e).splitlines()[0]}", flush=True)
        gc.collect()
        torch.cuda.empty_cache()

    for name, build in BUILDERS.items():
        for graphs in (True, False):
            keep(one_step(name, build, "bf16", True, graphs, side, batch, steps, rates["bf16"]))
        keep(one_step(name, build, "fp32", True, True, side, batch, steps, rates["fp32"]))
    keep(one_step("student", BUILDERS["student"], "bf16", False, True, side, batch, steps, rates["bf16"]))
    with tempfile.TemporaryDirectory() as folder:
        pictures = find_pictures(96, Path(folder))
        for name in ("student", "CML, shared teacher"):
            for drawn in (True, False):
                values = {
                    **{"data.train": [str(pictures.label_file)], "data.val": [str(pictures.label_file)]},
                    **{"data.val_size": 1, "data.batch_size": batch, "data.epoch_size": 3 * batch * steps},
                    **{"data.augment.crop_width": side, "data.augment.crop_height": side, "run.precision": "bf16"},
                    **{"data.num_workers": workers, "data.on_device": drawn, "data.cache_mib": 0},
                }
                recipe: RecipeConfig = StudentConfig() if name == "student" else CMLConfig()
                cfg = with_values(recipe, {**values, "data.augment.copy_paste.enabled": False}, "benchmark")
                like = next(f for f in figures if f.step == name and f.precision == "bf16")
                keep(with_loaders(name, cfg, rates["bf16"], like.tflops * 1e12 * like.ms / 1e3))
    name = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")
    about = {"device": torch.cuda.get_device_name(), "on": describe(), "size": size, "matrix_tflops": rates}
    rows = [dataclasses.asdict(figure) for figure in figures]
    write_text(out / f"{name}.json", json.dumps({**about, "rows": rows}, indent=2) + "\n")
    write_text(out / f"{name}.md", table(about, figures))
    print(out / f"{name}.md")


def matrix_rate(dtype: torch.dtype) -> float:
    """TFLOP/s of a product of two random square matrices; float32 as convolutions compute it, in TF32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    one, other = (torch.randn(MATRIX, MATRIX, device=CUDA, dtype=dtype) for _ in range(2))
    seconds = timed(lambda: one @ other, 12)
    torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * MATRIX**3 / seconds / 1e12


def timed(run: Callable[[], object], times: int) -> float:
    """Seconds of one run on the device, the median of `times` after three more."""
    for _ in range(3):
        run()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(times + 1)]  # type: ignore[no-untyped-call]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in pairwise(marks)) / 1e3


def student() -> tuple[RecipeConfig, Net]:
    """One light net."""
    cfg = StudentConfig()
    return cfg, Single(Detector(cfg.student.detector))


def cml(shared: bool) -> tuple[RecipeConfig, Net]:
    """Two light nets under the recipe's teacher, or under its stored answers."""
    cfg = CMLConfig()
    students = Detector(cfg.student.detector), Detector(cfg.student.detector)
    return cfg, DMLPair(*students) if shared else CMLTriple(*students, Detector(teacher_config()))


def dml() -> tuple[RecipeConfig, Net]:
    """Two large nets."""
    cfg = DMLConfig()
    return cfg, DMLPair(Detector(cfg.student.detector), Detector(cfg.student.detector))


BUILDERS: dict[str, Callable[[], tuple[RecipeConfig, Net]]] = {
    "student": student,
    "CML, shared teacher": lambda: cml(shared=True),
    "CML, live teacher": lambda: cml(shared=False),
    "DML": dml,
}


def one_step(
    name: str,
    build: Callable[[], tuple[RecipeConfig, Net]],
    precision: Precision,
    channels_last: bool,
    graphs: bool,
    side: int,
    batch: int,
    steps: int,
    rate: float,
) -> Iterator[Figure]:
    """A step on a batch that lies on the device, normalisation included."""
    torch.manual_seed(0)
    cfg, model = build()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.train().to(device=CUDA, memory_format=layout)  # type: ignore[call-overload]
    optimizer = build_adam([p for p in model.parameters() if p.requires_grad], cfg.optim)
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, device=CUDA)
    a, b, c, d = ((torch.rand(batch, side, side, device=CUDA) > 0.7).float() for _ in range(4))
    targets = Targets(a, b, c, d, a.bool() if name == "CML, shared teacher" else None)

    def step() -> None:
        ready = prepared(images, cfg.data.normalize, CUDA, channels_last)
        update(model, optimizer, ready, targets, cfg.loss, precision, cfg.optim.clip_norm)

    with FlopCounterMode(display=False) as counter:
        step()
    if graphs:
        record_graphs(model, (batch, 3, side, side), precision, channels_last)
    torch.cuda.reset_peak_memory_stats()
    seconds = timed(step, steps)
    tflops = counter.get_total_flops() / seconds / 1e12
    peak = torch.cuda.max_memory_reserved() / 2**30
    yield Figure(name, precision, channels_last, graphs, seconds * 1e3, batch / seconds, tflops, tflops / rate, peak)


def with_loaders(name: str, cfg: RecipeConfig, rate: float, flops: float) -> Iterator[Figure]:
    """An epoch from JPEG files: the second one, when loaders run and the allocator has what it needs."""
    torch.manual_seed(0)
    built = build_model(cfg, with_teacher=False)
    training = build_training(cfg, built, CUDA)
    model = training.model.train()
    if cfg.run.cuda_graphs:
        record_graphs(model, training.batch_shape, "bf16", cfg.run.channels_last)
    optimizer = build_adam([p for p in model.parameters() if p.requires_grad], cfg.optim)
    torch.cuda.reset_peak_memory_stats()
    waited, count, began = 0.0, 0, 0.0
    for epoch in range(2):
        training.sampler.set_epoch(epoch)
        torch.cuda.synchronize()
        batches, waited, count = iter(training.loader), 0.0, 0
        began = time.monotonic()
        while True:
            before = time.monotonic()
            loaded = next(batches, None)
            waited += time.monotonic() - before
            if loaded is None:
                break
            made = on_device(loaded, CUDA)
            images = prepared(made.images, cfg.data.normalize, CUDA, cfg.run.channels_last)
            targets = made.targets
            if isinstance(model, DMLPair):
                targets = dataclasses.replace(targets, teacher=targets.shrink_map.bool())
            update(model, optimizer, images, targets, cfg.loss, "bf16", cfg.optim.clip_norm)
            torch.cuda.synchronize()  # so that what is left of the time is waiting for the loader
            count += 1
        torch.cuda.synchronize()
    seconds = (time.monotonic() - began) / count
    tflops = flops / seconds / 1e12
    peak = torch.cuda.max_memory_reserved() / 2**30
    drawn = "data.on_device" if cfg.data.on_device else "maps from the loaders"
    how = f"{name}, {cfg.data.num_workers} loaders, {drawn}"
    images_per_s = cfg.data.batch_size / seconds
    yield Figure(
        how, "bf16", True, True, seconds * 1e3, images_per_s, tflops, tflops / rate, peak, waited / count / seconds
    )


def line(figure: Figure) -> str:
    """The row in Markdown."""
    waiting = "" if figure.waiting is None else f"{figure.waiting:.0%}"
    layout = "" if figure.channels_last else ", PyTorch's own layout"
    layout += "" if figure.graphs else ", without graphs"
    return (
        f"| {figure.step}{layout} | {figure.precision} | {figure.ms:.1f} | {figure.images_per_s:.0f} | "
        f"{figure.tflops:.1f} | {figure.share_of_matrix_rate:.1%} | {figure.peak_gib:.1f} | {waiting} |"
    )


def table(about: Mapping[str, object], figures: list[Figure]) -> str:
    """All rows, with what they were measured on."""
    rates = about["matrix_tflops"]
    assert isinstance(rates, dict)
    lines = [
        f"# A training step on {about['device']}",
        "",
        f"`python -m benchmarks.device_step`, crops of {about['size']}; {about['on']}. Matrix products of {MATRIX}x"
        f"{MATRIX} on this card: {rates['bf16']:.0f} TFLOP/s in bf16, {rates['fp32']:.0f} in fp32 (TF32).",
        "",
        "| step | precision | ms | images/s | TFLOP/s | of the matrix rate | peak GiB | waiting for loaders |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(line(figure) for figure in figures),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_command(main)
