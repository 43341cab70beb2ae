"""Records learning curves of real trials, for `python -m benchmarks.search`.

    python -m benchmarks.record_curves benchmarks/curves/cml_demo.json [--trials 48] [--seeds 8] [--work FOLDER]

The recipe whole at the demo's scale: a small teacher by DML, then CML students under it, each to its last epoch: values
drawn at random from SPACE, and the config's own with other seeds. They are trained as a sweep's trials are, by the same
loop with the teacher's answers shared, and without Ray, whose processes would take as long as the training. The same
command again goes on where it was interrupted.
"""

import argparse
import contextlib
import dataclasses
import json
import math
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.machine import describe, one_thread
from ocr_ray.config import CMLConfig, RecipeConfig
from ocr_ray.data.batch import Batch
from ocr_ray.data.compact import Loaded
from ocr_ray.data.synth import SynthConfig, render_set
from ocr_ray.demo import DemoScale, demo_configs
from ocr_ray.engine.checkpoint import RunState
from ocr_ray.engine.loop import EpochReport, Training, fit
from ocr_ray.engine.meter import LossNotFinite
from ocr_ray.engine.optim import build_adam
from ocr_ray.engine.teacher import Teacher, fingerprints_on
from ocr_ray.files import write_text
from ocr_ray.model_card import ModelCard, save_detector
from ocr_ray.recipes import build_model, build_training, load_teacher
from ocr_ray.spaces import space_from_plain
from ocr_ray.typed import with_values
from ocr_ray.worker import better_student

SPACE: dict[str, Any] = {
    "optim.lr": {"loguniform": [1.25e-3, 8e-2]},
    "loss.distill.weight": {"loguniform": [0.125, 8.0]},
    "loss.dml.weight": {"loguniform": [0.125, 8.0]},
    "loss.db.beta": {"loguniform": [1.25, 80.0]},
}
"""The demo's keys, each from an eighth to eight times the demo's own value: useless ones among them, as in a search
over a new domain."""
EPOCHS, STEPS = 9, 18
"""Of a trial, and of an epoch."""
SCALE = DemoScale(160, 0.7, 1.4, dml_steps=160, cml_steps=EPOCHS * STEPS, limit_side_len=320, limit_type="max", val=32)
PROCESSES = 2
Values = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record_curves")
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--trials", type=int, default=48, help="drawn at random")
    parser.add_argument("--seeds", type=int, default=8, help="trials of the config's own values, a seed each")
    parser.add_argument("--work", type=Path, default=Path("runs/curves"), metavar="FOLDER", help="for what is trained")
    arguments = parser.parse_args()
    write_text(arguments.out, dumped(record(arguments.work.resolve(), arguments.trials, arguments.seeds)))


def record(work: Path, trials: int, seeds: int) -> dict[str, Any]:
    """Trains whatever is not there yet in `work`. Returns: what `benchmarks.landscapes.read_recorded` reads."""
    dml, cml = configs(work)
    own = space_from_plain(SPACE, cml, "SPACE").own_values(cml)
    assert own is not None
    teacher_in(work, dml)
    drawn = [drawn_values(number) for number in range(trials)]
    wanted = {f"drawn {n}": values for n, values in enumerate(drawn)}
    wanted |= {f"seed {n}": {"run.seed": n} for n in range(1, seeds + 1)}
    curves = _all_curves(work, wanted)
    return {
        "what": f"CML at the demo's scale, {EPOCHS} epochs of {STEPS} steps of {cml.data.batch_size}; {SCALE}; "
        f"{trials} trials drawn at random, {seeds} seeds of the config's own values; {describe()}",
        "epochs": EPOCHS,
        "space": SPACE,
        "own": own,
        "trials": [{"values": values, "hmean": curves[f"drawn {n}"]} for n, values in enumerate(drawn)],
        "seeds": [curves[f"seed {n}"] for n in range(1, seeds + 1)],
    }


def configs(work: Path) -> tuple[RecipeConfig, CMLConfig]:
    """The teacher's recipe, and the students' with the demo's own values."""
    train, val = render_set(work / "data", SynthConfig(train=SCALE.train, val=SCALE.val), seed=0)
    dml, cml = demo_configs(work, train, val, SCALE)
    values = {
        "optim.epochs": EPOCHS,
        "optim.warmup_epochs": 0.1 * EPOCHS,  # a tenth, as in the demo
        "data.epoch_size": STEPS * cml.data.batch_size,
        "eval.every_epochs": 1,
        "teacher.weights": str(work / "teacher.safetensors"),
    }
    return dml, with_values(cml, values, "benchmark")


def drawn_values(number: int) -> Values:
    """Of the trial of that number."""
    rng = np.random.default_rng((0, number))
    return {key: _rounded(math.exp(rng.uniform(*np.log(given["loguniform"])))) for key, given in SPACE.items()}


def teacher_in(work: Path, dml: RecipeConfig) -> None:
    """Trains the pair, unless its better net lies there."""
    file = work / "teacher.safetensors"
    if file.exists():
        return
    one_thread()
    training = build_training(dml, build_model(dml), torch.device("cpu"))

    def keep(epoch: EpochReport) -> None:
        print(f"teacher: epoch {epoch.state.epoch}, hmean {epoch.state.best_hmean:.3f}", flush=True)
        if epoch.best:
            detector = better_student(training, epoch)[1]
            card = ModelCard(dml.student.detector, dml.data.normalize, dml.eval.resize, dml.eval.postprocess)
            save_detector(aside, detector, card)

    aside = work / "unfinished.safetensors"
    _fit(training, keep)
    aside.rename(file)


def curve(work: Path, values: Values) -> list[float]:
    """Hmean by epoch of the trial with these values; of one that diverges, up to there."""
    one_thread()
    cfg = with_values(configs(work)[1], values, "benchmark")
    training = build_training(cfg, build_model(cfg, with_teacher=False), torch.device("cpu"))
    training = dataclasses.replace(training, teacher=_answers(work))
    hmeans: list[float] = []
    with contextlib.suppress(LossNotFinite):
        _fit(training, lambda epoch: hmeans.append(_rounded(epoch.metrics["hmean"])))
    return hmeans


class Answers:
    """The teacher's, each asked for once: trials of one seed look at the same pictures."""

    def __init__(self, cfg: CMLConfig) -> None:
        loaded = load_teacher(cfg.teacher)
        self._teacher = Teacher(loaded.net, loaded.normalize, cfg.loss.distill.threshold, torch.device("cpu"))
        self._known: dict[int, Tensor] = {}

    def __call__(self, batch: Loaded) -> Tensor:
        """Of a batch that the loader has made whole."""
        assert isinstance(batch, Batch)
        numbers = fingerprints_on(batch, "cpu")
        if not self._known.keys() >= set(numbers):
            self._known |= dict(zip(numbers, self._teacher(batch.images), strict=True))
        return torch.stack([self._known[number] for number in numbers])


@cache
def _answers(work: Path) -> Answers:
    return Answers(configs(work)[1])


def _fit(training: Training, report: Any) -> None:
    parameters = [p for p in training.model.parameters() if p.requires_grad]
    fit(training, build_adam(parameters, training.optim), RunState(), report)


def _all_curves(work: Path, wanted: Mapping[str, Values]) -> dict[str, list[float]]:
    """By name; each is written down as it comes."""
    file = work / "curves.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    known: dict[str, list[float]] = dict(map(json.loads, lines))
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool, file.open("a") as log:
        running = {pool.submit(curve, work, values): name for name, values in wanted.items() if name not in known}
        for done in as_completed(running):
            known[running[done]] = done.result()
            log.write(json.dumps([running[done], done.result()]) + "\n")
            log.flush()
            print(running[done], *done.result(), flush=True)
    return known


def dumped(plain: Mapping[str, Any]) -> str:
    """As JSON with a line for each curve."""
    lines = []
    for key, value in plain.items():
        if isinstance(value, list):
            rows = ",\n  ".join(json.dumps(row) for row in value)
            lines.append(f'"{key}": [\n  {rows}\n ]')
        else:
            lines.append(f'"{key}": {json.dumps(value)}')
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


if __name__ == "__main__":
    main()
