"""Processes killed in mid-epoch: the run goes on from its last checkpoint and ends as if nothing had happened."""

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from rich.console import Console

from ocr_ray.config import RecipeConfig, load_config
from ocr_ray.progress import LiveFeed, ProgressEvent
from ocr_ray.reports import read_reports
from ocr_ray.train import train

EPOCHS = 20
"""So many that a kill in the first ones comes long before the last, however slowly anybody notices."""


class WorkerKiller(LiveFeed):
    """Kills the training worker at its first sign of life after `epoch` epochs."""

    def __init__(self, epoch: int) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.epoch = epoch
        self.killed: psutil.Process | None = None
        self.epochs_after: list[int] = []

    def put(self, event: ProgressEvent) -> None:
        if event.phase != "training":
            return
        if self.killed is not None:
            self.epochs_after.append(event.epoch)
        elif event.epoch == self.epoch and event.step:
            (self.killed,) = (p for p in psutil.Process().children(recursive=True) if p.name() == "ray::RayTrainWorker")
            self.killed.send_signal(signal.SIGKILL)


@pytest.fixture
def cfg(tiny: list[str], tmp_path: Path) -> RecipeConfig:
    settings = [f"optim.epochs={EPOCHS}", f"ray.storage={tmp_path}/runs", "ray.address=local"]
    return load_config(Path(tiny[0]), [*tiny[1:], *settings])


def the_run(cfg: RecipeConfig) -> tuple[str, list[tuple[int, float]]]:
    """Status and losses by epoch of the only MLflow run that there is."""
    client = MlflowClient(f"sqlite:///{cfg.ray.storage}/mlflow.db")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return run.info.status, [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss.total")]


def test_a_killed_worker_changes_no_number(cfg: RecipeConfig, many_bare_losses: list[float]) -> None:
    live = WorkerKiller(epoch=2)
    result = train(cfg, "run", live=live)
    assert live.killed is not None
    assert not live.killed.is_running()
    assert min(live.epochs_after) >= 1  # from a checkpoint; the second may not yet have been taken note of
    assert result.epochs == EPOCHS
    assert the_run(cfg) == ("FINISHED", list(enumerate(many_bare_losses, start=1)))


def test_a_killed_driver_leaves_no_work_behind_and_its_run_goes_on(
    cfg: RecipeConfig, tiny: list[str], many_bare_losses: list[float]
) -> None:
    folder = Path(cfg.ray.storage) / "run"
    typed = [*tiny, f"optim.epochs={EPOCHS}", f"ray.storage={cfg.ray.storage}", "ray.address=local", "--name", "run"]
    with subprocess.Popen([sys.executable, "-m", "ocr_ray", "train", *typed], stderr=subprocess.DEVNULL) as driver:
        while not (kept := read_reports(folder)) or kept[-1]["epoch"] < 2:
            assert driver.poll() is None
            time.sleep(0.05)
        processes = psutil.Process(driver.pid).children(recursive=True)
        # Two small agents of Ray's go last: they look for their cluster for a minute.
        working = [p for p in processes if p.is_running() and not p.name().endswith("Agent")]
        driver.kill()
    _, alive = psutil.wait_procs(working, timeout=30)
    assert not alive
    (at,) = {report["epoch"] for report in read_reports(folder)[-1:]}
    assert 2 <= at < EPOCHS
    assert the_run(cfg)[0] == "RUNNING"  # nobody was left to say otherwise

    live = LiveFeed(Console(file=io.StringIO()))
    assert train(cfg, "run", resume=True, live=live).epochs == EPOCHS
    assert the_run(cfg) == ("FINISHED", list(enumerate(many_bare_losses, start=1)))
