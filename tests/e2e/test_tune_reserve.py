"""The processes of a later trial: there before the trial is, and gone with the sweep."""

import io
from pathlib import Path

import psutil
from rich.console import Console

from ocr_ray.config import load_config
from ocr_ray.progress import LiveFeed, ProgressEvent
from ocr_ray.spaces import space_from_plain
from ocr_ray.tune import sweep

HELD = ("ray::ImplicitFunc", "ray::TrainController", "ray::RayTrainWorker", "ray::PlacementGroupCleaner")
EPOCHS = 40


class Processes(LiveFeed):
    """Notes Ray's processes by their names at every sign of life of a trial."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.idle: dict[str, set[int]] = {}
        self.held: dict[str, dict[str, int]] = {}
        self.all: set[psutil.Process] = set()

    def put(self, event: ProgressEvent) -> None:
        if event.phase != "training":
            return
        family = psutil.Process().children(recursive=True)
        self.all.update(family)
        names = {}
        for process in family:
            try:
                names[process.pid] = process.name().split(".")[0]  # Ray adds the method that runs
            except psutil.NoSuchProcess:
                continue
        self.idle[event.run] = self.idle.get(event.run, set()) | {p for p, name in names.items() if name == "ray::IDLE"}
        held = {name: pid for pid, name in names.items() if name.startswith("ray::")}
        self.held[event.run] = self.held.get(event.run, {}) | held


def test_a_second_trial_runs_in_processes_that_were_ready_and_none_outlives_the_sweep(
    tiny: list[str], tmp_path: Path
) -> None:
    settings = ("sweep.trials=2", "sweep.max_concurrent=1", "sweep.scheduler=none", "ray.cpus_per_worker=0.9")
    here = (f"ray.storage={tmp_path}/runs", "ray.address=local", f"optim.epochs={EPOCHS}", "eval.every_epochs=20")
    cfg = load_config(Path(tiny[0]), [*tiny[1:], *settings, *here])
    live = Processes()
    result = sweep(cfg, space_from_plain({"loss.db.beta": {"uniform": [1, 20]}}, cfg, "space"), live=live)
    assert [trial.epochs for trial in result.trials] == [EPOCHS, EPOCHS]
    second = {name: pid for name, pid in live.held["trial 2"].items() if name in HELD}
    assert len(second) == len(HELD), live.held
    assert set(second.values()) <= live.idle["trial 1"]
    _, alive = psutil.wait_procs(list(live.all), timeout=15)
    assert not alive
