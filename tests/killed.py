"""Commands of ours in processes of their own, whose drivers are killed, and what they have left."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient

from ocr_ray.status import standing

SLOW = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""These two of Ray's watch for their parent's end, and take a minute over it."""
TOLD = ("number", "values", "epochs", "hmean", "end", "reason")
"""What a kill must not change of a trial."""
Trials = list[dict[str, Any]]


class Command:
    """`ocr-ray` with these words, in `folder`."""

    def __init__(self, folder: Path, *words: str) -> None:
        self._folder, self._words = folder, (sys.executable, "-m", "ocr_ray", *words)
        self._environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}

    def kill_when(self, moment: Callable[[Sequence[psutil.Process]], bool], *options: str) -> None:
        """Starts it, and kills its driver when `moment` says so of the processes below it. None of them works on."""
        with subprocess.Popen(
            [*self._words, *options], cwd=self._folder, env=self._environment, stderr=subprocess.DEVNULL
        ) as driver:
            family: list[psutil.Process] = []
            while not moment(family):
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

    def end(self, *options: str) -> str:
        """Runs it to its end. Returns: what it said on standard error."""
        ended = subprocess.run(
            [*self._words, *options],
            cwd=self._folder,
            env=self._environment,
            timeout=600,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr[-2000:]
        return ended.stderr


class Sweep:
    """`ocr-ray tune` over a space, its file's text, in a folder of its own."""

    def __init__(self, folder: Path, tiny: list[str], space: str, settings: Sequence[str]) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "space.yaml").write_text(space)
        words = ("tune", tiny[0], "space.yaml", *tiny[1:], "--name", "s", "ray.storage=runs", "ray.address=local")
        self.command = Command(folder, *words, *settings)

    def kill_when(self, moment: Callable[[Trials, int], bool], *options: str) -> None:
        """Kills it when `moment` says so of its trials and of how many processes train."""
        self.command.kill_when(
            lambda family: bool(trials := self.trials()) and moment(trials, sum(map(works, family))), *options
        )
        assert standing(self.folder / "runs" / "s").state == "killed"

    def end(self, *options: str) -> None:
        """Runs it to its end."""
        self.command.end(*options)

    def trials(self) -> Trials:
        """By its book."""
        return trials_in(self.folder / "runs" / "s")

    def table(self) -> Trials:
        """What a kill must not change of them."""
        return [{key: trial[key] for key in TOLD} for trial in self.trials()]

    def runs(self) -> list[tuple[str, str, list[int]]]:
        """As `tracked_runs`."""
        return tracked_runs(self.folder / "runs")


def trials_in(sweep: Path) -> Trials:
    """By the book in a sweep's folder; none before it is there."""
    book = sweep / "trials.json"
    return list(json.loads(book.read_text())["trials"]) if book.exists() else []


def tracked_runs(storage: Path) -> list[tuple[str, str, list[int]]]:
    """Of MLflow: name, status, and the epochs for which there is a loss."""
    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
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
    """Whether it is one of these of Ray's."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.name() in names or (process.cmdline() or [""])[0] in names
    return False


def works(process: psutil.Process) -> bool:
    """Whether it trains."""
    return named(process, ("ray::RayTrainWorker",))
