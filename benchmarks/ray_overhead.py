"""What Ray adds to the bare loop: an epoch's report and checkpoint, as a share of an epoch of a minute."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.rows import Bench, Row, Subject
from ocr_ray.config import DataConfig, RecipeConfig, StudentConfig
from ocr_ray.data.augment import AugmentConfig
from ocr_ray.data.synth import SynthConfig, render_set
from ocr_ray.engine.checkpoint import RunState
from ocr_ray.engine.evaluate import EvalConfig
from ocr_ray.engine.loop import RunConfig, fit
from ocr_ray.engine.optim import OptimConfig, build_adam
from ocr_ray.recipes import build_model, build_training
from ocr_ray.session import connected
from ocr_ray.settings import ClusterConfig
from ocr_ray.train import train

EPOCH_S = 60.0
FEW, MANY = 2, 42


def rows(bench: Bench) -> list[Row]:
    """One row."""
    words = SynthConfig(train=8, val=1, width=128, height=128, min_words=1, max_words=3, max_text_height=32, curved=0)
    train_file, val_file = render_set(bench.folder / "ray_overhead", words, seed=1)
    bare, with_ray = [], []

    def config(epochs: int) -> RecipeConfig:
        return _config(train_file, val_file, epochs, bench.folder)

    with connected(config(FEW).ray):
        for turn in range(2):
            bare.append(_slope({epochs: partial(_bare, config(epochs)) for epochs in (FEW, MANY)}))
            with_ray.append(
                _slope({epochs: partial(train, config(epochs), f"overhead-{turn}-{epochs}") for epochs in (FEW, MANY)})
            )
    added = statistics.median(with_ray) - statistics.median(bare)
    return [
        Row(
            "report and checkpoint of Ray, added to an epoch of a minute",
            100 * max(added, 0.0) / EPOCH_S,
            2.0,
            "%",
            f"{added:.2f} s wall an epoch with a checkpoint of the student: the slope between runs of {FEW} and {MANY} "
            f"short epochs, {statistics.median(with_ray):.2f} s under Ray, {statistics.median(bare):.2f} s bare; "
            "2 alternating pairs",
        )
    ]


def _config(train_file: Path, val_file: Path, epochs: int, folder: Path) -> RecipeConfig:
    return StudentConfig(
        optim=OptimConfig(epochs=epochs, warmup_epochs=0.5),
        data=DataConfig(
            train=(str(train_file),),
            val=(str(val_file),),
            batch_size=4,
            num_workers=0,
            augment=AugmentConfig(crop_width=64, crop_height=64),
        ),
        eval=EvalConfig(every_epochs=1000),
        run=replace(RunConfig(), threads=1, evaluate_start=False),
        ray=ClusterConfig(storage=str(folder / "runs")),
    )


def _slope(runs: dict[int, Callable[[], object]]) -> float:
    """Wall seconds an epoch: start and end are in both runs, and fall out."""
    seconds = {}
    for epochs, run in runs.items():
        started = time.monotonic()
        run()
        seconds[epochs] = time.monotonic() - started
    return (seconds[MANY] - seconds[FEW]) / (MANY - FEW)


def _bare(cfg: RecipeConfig) -> None:
    training = build_training(cfg, build_model(cfg), torch.device("cpu"))
    fit(training, build_adam(list(training.model.parameters()), cfg.optim), RunState(), lambda epoch: None)


SUBJECT = Subject("ray_overhead", rows, quick=False)
