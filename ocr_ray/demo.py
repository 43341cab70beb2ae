"""The main job at a size that a laptop does in minutes, with nothing given: `ocr-ray demo`.

What it may show is that the whole recipe runs and learns. At a hundred steps a trial, seeds differ by more than loss
weights do: it is no evidence that distillation gains, nor a ranking of weights.
"""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from ocr_ray.config import CMLConfig, DMLConfig, to_yaml
from ocr_ray.data.images import read_image, write_image
from ocr_ray.data.synth import SynthConfig, render_set
from ocr_ray.engine.evaluate import EvalConfig, ImageResult, evaluate
from ocr_ray.errors import DataError
from ocr_ray.files import whole_folder, write_text
from ocr_ray.model_card import load_detector
from ocr_ray.models.detector import Detector
from ocr_ray.pipeline import PipelineResult, run_pipeline
from ocr_ray.progress import LiveFeed
from ocr_ray.recipes import read_train, read_val
from ocr_ray.report.read import REPORT_FILE
from ocr_ray.spaces import space_from_plain
from ocr_ray.stages import Stages
from ocr_ray.typed import with_values
from ocr_ray.visualize import contact_sheet, draw_regions, side_by_side

SPACE = {
    # Also in search_spaces/demo.yaml, with the reasons.
    "optim.lr": {"loguniform": [3e-3, 2e-2]},
    "loss.distill.weight": {"loguniform": [0.25, 4.0]},
    "loss.dml.weight": {"loguniform": [0.25, 4.0]},
    "loss.db.beta": {"loguniform": [5.0, 20.0]},
}
PICTURES_DRAWN = 8


@dataclass(frozen=True)
class DemoScale:
    """How large the demo's trainings are. Sizes in pixels, lengths in optimiser steps of 4 pictures."""

    crop: int
    scale_min: float
    scale_max: float
    dml_steps: int
    cml_steps: int
    limit_side_len: int
    limit_type: str
    val: int
    """Pictures of val that are used: the demo evaluates often."""
    train: int = 200
    """Pictures to train on, where they are rendered."""


RENDERED = DemoScale(160, 0.7, 1.4, dml_steps=128, cml_steps=100, limit_side_len=320, limit_type="max", val=24)
# Crops are parts of a picture scaled to fit, so that text in them is about as large as at this size in evaluation.
PHOTOGRAPHS = DemoScale(256, 0.5, 1.5, dml_steps=320, cml_steps=280, limit_side_len=736, limit_type="max", val=32)
BATCH = 4


def run_demo(
    out: Path, train: Path | None = None, val: Path | None = None, scale: DemoScale | None = None
) -> PipelineResult:
    """Everything under `out`: pictures and labels, configs, runs, MLflow's database, the best student, what it finds.

    Args: train and val are label files of your own photographs, given together; absent: pictures are rendered. scale
        is by default RENDERED or PHOTOGRAPHS accordingly.
    Raises: DataError when only one of the two is given; else as `run_pipeline`.
    """
    if (train is None) != (val is None):
        raise DataError("demo: --train and --val go together, found one of them")
    began = time.monotonic()
    console = Console(stderr=True)
    with LiveFeed(console) as live:
        if train is None or val is None:
            scale = scale or RENDERED
            live.stage("rendering pictures")
            train, val = render_set(out / "data", SynthConfig(train=scale.train, val=scale.val), seed=0)
            live.say(f"data: rendered {scale.train} training and {scale.val} validation pictures into {train.parent}")
        else:
            scale = scale or PHOTOGRAPHS
        dml, cml = demo_configs(out, train, val, scale)
        read_train(cml), read_val(cml)  # a mistake in them is told before anything is written
        for cfg in (dml, cml):
            write_text(out / f"{cfg.recipe}.yaml", to_yaml(cfg))
        # JSON is YAML: the file is what `ocr-ray tune` takes
        write_text(out / "space.yaml", json.dumps(SPACE, indent=2) + "\n")
        stages = Stages(dml, cml, space_from_plain(SPACE, cml, "demo"))
        result = run_pipeline(stages, out / "student.safetensors", live)
        live.stage("drawing")
        overview = draw_findings(result.student, cml, out / "pictures")
        start = score_random(cml)
    _summary(result, start, overview, out, time.monotonic() - began)
    return result


def demo_configs(out: Path, train: Path, val: Path, scale: DemoScale) -> tuple[DMLConfig, CMLConfig]:
    """The demo's two recipes: the reference's methods with a smaller teacher, small crops and few, fast steps."""
    epochs = 4
    common = {
        "data.train": str(train),
        "data.val": str(val),
        "data.val_size": scale.val,
        "data.batch_size": BATCH,
        "data.num_workers": 0,  # at this size the pictures take less time than a loader's start
        "data.augment.crop_width": scale.crop,
        "data.augment.crop_height": scale.crop,
        "data.augment.scale_min": scale.scale_min,
        "data.augment.scale_max": scale.scale_max,
        "data.augment.copy_paste.enabled": False,  # in so few steps no picture is seen often enough to need it
        "optim.lr": 1e-2,
        "optim.epochs": epochs,
        "optim.warmup_epochs": 0.4,
        "optim.weight_decay": 0.0,
        "optim.eps": 1e-8,  # as the figures of the demo were measured
        "eval.resize.limit_side_len": scale.limit_side_len,
        "eval.resize.limit_type": scale.limit_type,
        "eval.every_epochs": 2,
        "ray.storage": str(out / "runs"),
    }
    cores = os.cpu_count() or 1
    dml = with_values(
        DMLConfig(),
        {
            **common,
            "student.detector.backbone": {"kind": "resnet_vd", "layers": 18, "width": 0.5},
            "student.detector.neck": {"kind": "lkpan", "out_channels": 64, "mode": "lite"},
            "data.epoch_size": scale.dml_steps * BATCH // epochs,
            "ray.cpus_per_worker": float(min(cores, 8)),
        },
        "demo",
    )
    cml = with_values(
        CMLConfig(),
        {
            **common,
            "data.epoch_size": scale.cml_steps * BATCH // epochs,
            "sweep.trials": 4,
            "sweep.neighbours": 0,  # a quarter of so few would be one
            "sweep.scheduler": "asha",  # a sweep of so few has no use for it; it is to be seen at work
            "sweep.grace_epochs": 2,
            "sweep.reduction_factor": 2,
            "ray.cpus_per_worker": 0.9,  # and a little for the trial itself, so that two cores hold two
        },
        "demo",
    )
    return dml, cml


def score_random(cfg: CMLConfig) -> float:
    """Hmean on val of the student as its first trial begins, with random weights."""
    torch.manual_seed(cfg.run.seed)
    student = Detector(cfg.student.detector)
    return evaluate(student, read_val(cfg), cfg.data.normalize, cfg.eval, torch.device("cpu")).score.hmean


def draw_findings(weights: Path, cml: CMLConfig, out: Path) -> Path:
    """Labelled and found regions over pictures of val, each beside its probability map; and all in one sheet.

    Returns: the sheet. `out` is replaced whole.
    """
    detector, card, _ = load_detector(weights)
    samples = read_val(cml)[:PICTURES_DRAWN]
    drawn = []

    def draw(result: ImageResult) -> None:
        image = read_image(result.sample.image)
        found = [d.polygon for d in result.detections]
        regions = draw_regions(image, found, result.sample.polygons, result.sample.ignore)
        drawn.append((result.sample.image.stem, side_by_side(regions, result.probability)))

    cfg = EvalConfig(resize=card.resize, postprocess=card.postprocess)
    evaluate(detector, samples, card.normalize, cfg, torch.device("cpu"), on_image=draw)
    with whole_folder(out) as aside:
        for name, picture in drawn:
            write_image(aside / f"{name}.jpg", picture)
        write_image(aside / "overview.jpg", contact_sheet([picture for _, picture in drawn], 2, 640))
    return out / "overview.jpg"


def _summary(result: PipelineResult, start: float, overview: Path, out: Path, seconds: float) -> None:
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 200)
    assert result.teacher is not None
    stages = Table(title="hmean on val, by stage", box=None, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left")
    stages.add_column("stage")
    stages.add_column("hmean", justify="right")
    stages.add_row("student at its start, random weights", f"{start:.4f}")
    stages.add_row("teacher, the better of a DML pair", f"{result.teacher.hmean:.4f}")
    stages.add_row("best student of the sweep, from its file", f"{result.evaluation.score.hmean:.4f}")
    console.print(stages)
    console.print()
    console.print(result.sweep.table())
    if result.sweep.taught is not None:
        console.print(result.sweep.taught.one_line())
    if result.exported is not None and result.exported.gate is not None:
        console.print()
        console.print(result.exported.gate.table())
    console.print()
    console.print(f"took           {seconds / 60:.1f} minutes")
    console.print(f"best weights   {result.student}")
    if result.exported is not None:
        console.print(f"as ONNX        {result.exported}")
    console.print(f"pictures       {overview}")
    report = result.sweep.folder / REPORT_FILE
    if report.exists():
        console.print(f"report         {report}")
    console.print(f"configs        {out / 'dml.yaml'}  {out / 'cml.yaml'}  {out / 'space.yaml'}")
    console.print(f"all runs       {result.sweep.ui_line}", highlight=False)
    storage = result.sweep.folder.parent
    console.print(
        f"their files    ocr-ray status --storage {storage}; report and whence take it as well", highlight=False
    )
