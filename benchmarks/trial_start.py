"""How long a trial takes from Tune's decision to its first step, on a cluster where another has just ended.

Sweeps of three trials, one at a time, on a cluster of its own; with the reserve of
started processes and without it, in turns.
"""

import contextlib
import io
import os
import statistics
import time
from typing import Any
from unittest import mock

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from rich.console import Console

from benchmarks.rows import Bench, Row, Subject
from ocr_ray.config import RecipeConfig, StudentConfig, override
from ocr_ray.data.synth import SynthConfig, render_set
from ocr_ray.progress import LiveFeed, ProgressEvent
from ocr_ray.spaces import space_from_plain
from ocr_ray.tune import sweep

TARGET_S = 5.0
TURNS, TRIALS = 2, 3
SETTINGS = (
    *("student.detector.backbone.kind=mobilenet_v3", "student.detector.backbone.scale=0.35"),
    *("optim.epochs=40", "data.batch_size=2", "data.epoch_size=32", "data.num_workers=0"),
    *("data.augment.crop_width=64", "data.augment.crop_height=64", "eval.every_epochs=10", "run.threads=1"),
    *("eval.resize.limit_side_len=128", "eval.resize.limit_type=max", "ray.address=local"),
    *(f"sweep.trials={TRIALS}", "sweep.max_concurrent=1", "sweep.scheduler=none", "ray.cpus_per_worker=0.9"),
)
"""Trials of some ten seconds: the reserve is to be ready when they end, as it is with trials of minutes."""


class _Watch(LiveFeed):
    """Notes when a trial was decided on and when its worker first told of a step."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.decided: list[float] = []
        self.stepped: dict[str, float] = {}

    def put(self, event: ProgressEvent) -> None:
        if event.phase == "training":
            self.stepped.setdefault(event.run, time.monotonic())
        super().put(event)

    def starts(self) -> list[float]:
        """Seconds of all trials, in their order."""
        return [self.stepped[f"trial {n}"] - at for n, at in enumerate(self.decided, start=1)]

    def scheduler(self) -> FIFOScheduler:
        decided = self.decided

        class Noted(FIFOScheduler):
            def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
                decided.append(time.monotonic())
                super().on_trial_add(tune_controller, trial)

        return Noted()  # type: ignore[no-untyped-call]


def rows(bench: Bench) -> list[Row]:
    """Two rows: a later trial's start as it is, and without the reserve."""
    folder = bench.folder / "trial_start"
    train, val = render_set(folder / "data", SynthConfig(train=16, val=4), seed=0)
    labels = (f"data.train=[{train}]", f"data.val=[{val}]", f"ray.storage={folder}/runs")
    cfg = override(StudentConfig(), [*SETTINGS, *labels])
    first: dict[bool, list[float]] = {True: [], False: []}
    later: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(TURNS):
        for reserve in (False, True):
            began, *others = _starts(cfg, f"{turn}-{reserve}", reserve)
            first[reserve].append(began)
            later[reserve] += others
    load = os.getloadavg()[1]
    told = (
        f"{TURNS} sweeps of {TRIALS} trials of one worker, one at a time, each side on clusters of its own in turns; "
        f"{os.cpu_count()} cores, load {load:.1f} over 5 minutes; up to a sign of life that comes half a second or "
        f"more after the first step"
    )
    return [
        _row("start of a later trial of a sweep, Tune decides to first step", later[True], TARGET_S, told, first[True]),
        _row("the same without processes that are ready", later[False], None, told, first[False]),
    ]


def _starts(cfg: RecipeConfig, name: str, reserve: bool) -> list[float]:
    live = _Watch()
    space = space_from_plain({"loss.db.beta": {"uniform": [1, 20]}}, cfg, "benchmark")
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("ocr_ray.search.schedulers.first_come", live.scheduler))
        if not reserve:
            stack.enter_context(mock.patch("ocr_ray.search.loop.fill_up"))
        sweep(cfg, space, name=name, live=live)
    return live.starts()


def _row(name: str, later: list[float], target: float | None, told: str, first: list[float]) -> Row:
    how = f"median of {_listed(later)}; first trials {_listed(first)}; {told}"
    return Row(name, statistics.median(later), target, "s", how)


def _listed(seconds: list[float]) -> str:
    return ", ".join(f"{s:.1f}" for s in seconds)


SUBJECT = Subject("trial_start", rows, quick=False)
