"""A sweep whose driver is killed again and again ends with the table of one that nobody disturbed."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from ocr_ray.status import standing

SPACE = "optim.lr: {loguniform: [1.0e-4, 3.0e-2]}\nloss.db.beta: {uniform: [1, 20]}\n"
EPOCHS = 6
SLOW = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""These two of Ray's watch for their parent's end, and take a minute over it."""
Trials = list[dict[str, Any]]


def before_the_first_report(trials: Trials, workers: int) -> bool:
    return workers > 0


def in_the_middle(trials: Trials, workers: int) -> bool:
    return trials[0]["epochs"] >= 2


def after_the_first_trial(trials: Trials, workers: int) -> bool:
    return trials[0]["end"] != "running"


class Sweep:
    """`ocr-ray tune` of a search that one seed decides: one trial at a time."""

    def __init__(self, folder: Path, tiny: list[str]) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "space.yaml").write_text(SPACE)
        self.command = [
            *(sys.executable, "-m", "ocr_ray", "tune", tiny[0], "space.yaml", *tiny[1:], "--name", "s"),
            *("ray.storage=runs", "ray.address=local", f"optim.epochs={EPOCHS}", "sweep.trials=3", "sweep.seed=3"),
            *("sweep.max_concurrent=1", "sweep.scheduler=asha", "sweep.grace_epochs=2", "sweep.reduction_factor=2"),
        ]
        self.environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}

    def trials(self) -> Trials:
        book = self.folder / "runs" / "s" / "trials.json"
        return list(json.loads(book.read_text())["trials"]) if book.exists() else []

    def kill_when(self, moment: Callable[[Trials, int], bool], *options: str) -> None:
        """Starts it, and kills its driver then. No process of it works on."""
        with subprocess.Popen(
            [*self.command, *options], cwd=self.folder, env=self.environment, stderr=subprocess.DEVNULL
        ) as driver:
            family: list[psutil.Process] = []
            while not (trials := self.trials()) or not moment(trials, sum(map(works, family))):
                assert driver.poll() is None
                time.sleep(0.05)
                family = psutil.Process(driver.pid).children(recursive=True)
            family = psutil.Process(driver.pid).children(recursive=True)
            driver.kill()
        _, alive = psutil.wait_procs([p for p in family if not named(p, SLOW)], timeout=30)
        assert not alive
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert standing(self.folder / "runs" / "s").state == "killed"

    def end(self, *options: str) -> None:
        subprocess.run([*self.command, *options], cwd=self.folder, env=self.environment, check=True, timeout=400)

    def table(self) -> list[dict[str, Any]]:
        told = ("number", "values", "epochs", "hmean", "end", "reason")
        return [{key: trial[key] for key in told} for trial in self.trials()]

    def runs(self) -> list[tuple[str, str, list[int]]]:
        """Of MLflow: name, status, and the epochs for which there is a loss."""
        client = MlflowClient(f"sqlite:///{self.folder}/runs/mlflow.db")
        found = client.search_runs([e.experiment_id for e in client.search_experiments()])
        return sorted(
            (
                str(run.info.run_name),
                run.info.status,
                [m.step for m in client.get_metric_history(run.info.run_id, "loss.total")],
            )
            for run in found
        )


def named(process: psutil.Process, names: tuple[str, ...]) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.name() in names or (process.cmdline() or [""])[0] in names
    return False


def works(process: psutil.Process) -> bool:
    return named(process, ("ray::RayTrainWorker",))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_kills_change_no_line_of_the_table(tiny: list[str], tmp_path: Path) -> None:
    killed = Sweep(tmp_path / "killed", tiny)
    killed.kill_when(before_the_first_report)
    assert killed.trials()[0]["epochs"] == 0
    killed.kill_when(in_the_middle, "--resume")
    killed.kill_when(after_the_first_trial, "--resume")
    killed.end("--resume")
    undisturbed = Sweep(tmp_path / "undisturbed", tiny)
    undisturbed.end()
    assert killed.table() == undisturbed.table()
    ends = [trial["end"] for trial in killed.table()]
    assert ends[0] == "finished"
    assert "stopped early" in ends  # else the seed draws too little
    assert killed.runs() == undisturbed.runs()
    epochs = {f"trial {trial['number']}": list(range(1, trial["epochs"] + 1)) for trial in killed.table()}
    assert killed.runs() == [("s", "FINISHED", []), *((name, "FINISHED", steps) for name, steps in epochs.items())]
