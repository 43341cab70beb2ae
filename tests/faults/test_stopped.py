"""Ctrl-C and SIGTERM at `ocr-ray train`: MLflow is told, no process stays, and the command says so."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

Stop = Callable[[int], None]


def ctrl_c(pid: int) -> None:
    """As a terminal does it: to every process of the foreground group."""
    os.killpg(pid, signal.SIGINT)


def terminate(pid: int) -> None:
    """As `kill` does it, to this one alone."""
    os.kill(pid, signal.SIGTERM)


@pytest.mark.parametrize("stop", [ctrl_c, terminate])
def test_a_stopped_run_is_marked_killed_and_leaves_no_process(stop: Stop, tiny: list[str], tmp_path: Path) -> None:
    settings = [f"ray.storage={tmp_path}/runs", "ray.address=local", "optim.epochs=500"]
    typed = [sys.executable, "-m", "ocr_ray", "train", *tiny, *settings, "--name", "run"]
    with subprocess.Popen(typed, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while not list(tmp_path.rglob("best/student.json")):  # an epoch has been reported
            assert process.poll() is None
            time.sleep(0.1)
        started = psutil.Process(process.pid).children(recursive=True)
        stop(process.pid)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "ocr-ray: stopped"
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(started, timeout=15)
    assert not alive
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert [(run.info.run_name, run.info.status) for run in runs] == [("run", "KILLED")]
