"""A sweep of the command line, stopped by each signal there is, resumed after each, and whole in the end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from ocr_ray.data.synth import SynthConfig, render_set
from ocr_ray.reports import read_reports
from ocr_ray.tracking import PARENT_TAG

TINY = Path(__file__).resolve().parents[1] / "tiny_student.yaml"
EPOCHS = 14


class Sweep:
    """`ocr-ray tune` as a process group of its own, as a shell starts it."""

    def __init__(self, folder: Path) -> None:
        train, val = render_set(folder / "data", SynthConfig(train=16, val=4), seed=0)
        self.folder = folder
        (folder / "space.yaml").write_text(
            "loss.db.beta: {uniform: [1, 20]}\n"
            "loss.db.main: {choice: [dice, bce]}\n"
            "loss.db.ohem_ratio: {uniform: [4, 9], when: {loss.db.main: bce}}\n"
        )
        self._command = [
            *(sys.executable, "-m", "ocr_ray", "tune", str(TINY), "space.yaml", "--name", "s"),
            *(f"data.train=[{train}]", f"data.val=[{val}]", "ray.storage=runs", "ray.cpus_per_worker=0.9"),
            *(f"optim.epochs={EPOCHS}", "data.epoch_size=40", "data.augment.crop_width=128"),
            *("data.augment.crop_height=128", "sweep.trials=3", "sweep.scheduler=none", "sweep.max_concurrent=2"),
            "sweep.seed=1",
        ]
        self.epochs_before = 0

    def start(self, *options: str) -> None:
        # Workers may have finished epochs of which the stopped driver has not heard.
        self.epochs_before = sum(len(read_reports(trial)) for trial in self.folder.glob("runs/s/train/*"))
        environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
        with (self.folder / "errors.txt").open("w") as errors:
            self.process = subprocess.Popen(
                [*self._command, *options],
                cwd=self.folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

    def epochs(self) -> int:
        """Finished ones, over all trials."""
        book = self.folder / "runs" / "s" / "trials.json"
        return sum(t["epochs"] for t in json.loads(book.read_text())["trials"]) if book.exists() else 0

    def wait_for_epochs(self, more: int) -> None:
        for _ in range(1500):
            if self.epochs() >= self.epochs_before + more:
                return
            assert self.process.poll() is None, self.errors()
            time.sleep(0.1)
        pytest.fail(f"no epoch in 150 s: {self.errors()}")

    def stop(self, send: Callable[[int], None], slow: tuple[str, ...] = ()) -> int:
        """The exit code. No process of the sweep, workers and cluster, is left, but for those of the `slow` names."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        assert any("RayTrainWorker" in " ".join(p.cmdline()) for p in family)
        late = [p for p in family if p.cmdline()[0] in slow]
        send(self.process.pid)
        self.process.communicate(timeout=60)
        _, alive = psutil.wait_procs([p for p in family if p not in late], timeout=30)
        assert not [p.cmdline() for p in alive]
        for process in late:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return self.process.returncode

    def errors(self) -> str:
        return (self.folder / "errors.txt").read_text()

    def runs(self) -> dict[str, Run]:
        client = MlflowClient(f"sqlite:///{self.folder / 'runs' / 'mlflow.db'}")
        found = client.search_runs([e.experiment_id for e in client.search_experiments()])
        names = [run.info.run_name for run in found]
        assert len(names) == len(set(names))  # a resume goes on with the runs that are there
        return {run.info.run_name: run for run in found}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    sweep = Sweep(tmp_path_factory.mktemp("sweep"))
    yield sweep
    if sweep.process.poll() is None:  # a test failed half way
        sweep.process.terminate()
        sweep.process.communicate(timeout=60)


# The tests below are one story and run in this order.


def test_ctrl_c_leaves_runs_killed_and_no_process(sweep: Sweep) -> None:
    sweep.start()
    sweep.wait_for_epochs(3)
    code = sweep.stop(lambda pid: os.killpg(pid, signal.SIGINT))  # as the terminal does
    assert code == 130
    assert "stopped; `--name s --resume` goes on with it" in sweep.errors()
    assert "Traceback" not in sweep.errors()
    statuses = {name: run.info.status for name, run in sweep.runs().items()}
    assert statuses == dict.fromkeys(["s", "trial 1", "trial 2"], "KILLED")


def test_sigterm_to_a_resumed_sweep_does_the_same(sweep: Sweep) -> None:
    sweep.start("--resume")
    sweep.wait_for_epochs(2)
    code = sweep.stop(lambda pid: os.kill(pid, signal.SIGTERM))
    assert code == 130
    statuses = {name: run.info.status for name, run in sweep.runs().items()}
    assert statuses == dict.fromkeys(["s", "trial 1", "trial 2"], "KILLED")


def test_a_driver_that_is_killed_takes_its_processes_along(sweep: Sweep) -> None:
    sweep.start("--resume")
    sweep.wait_for_epochs(2)
    # These two of Ray's watch for their parent's end, and take a minute over it.
    code = sweep.stop(lambda pid: os.kill(pid, signal.SIGKILL), slow=("ray::DashboardAgent", "ray::RuntimeEnvAgent"))
    assert code == -signal.SIGKILL


def test_the_last_resume_ends_it_and_nothing_was_done_twice(sweep: Sweep) -> None:
    sweep.start("--resume")
    out, _ = sweep.process.communicate(timeout=400)
    assert sweep.process.returncode == 0, sweep.errors()
    best = Path(out.split()[-1])
    assert best.is_file()
    assert "early stopping: 3 trials finished, too few to say whether it would have been safe" in out
    trials = json.loads((sweep.folder / "runs" / "s" / "trials.json").read_text())["trials"]
    assert [(t["number"], t["end"], t["epochs"]) for t in trials] == [(n, "finished", EPOCHS) for n in (1, 2, 3)]
    runs = sweep.runs()
    assert {name: run.info.status for name, run in runs.items()} == dict.fromkeys(
        ["s", "trial 1", "trial 2", "trial 3"], "FINISHED"
    )
    client = MlflowClient(f"sqlite:///{sweep.folder / 'runs' / 'mlflow.db'}")
    used = [runs[f"trial {n}"].data.params for n in (1, 2, 3)]
    assert {params["loss.db.main"] for params in used} == {"dice", "bce"}  # else the seed draws too little
    for params in used:  # drawn under its condition, and else as the config has it
        assert (float(params["loss.db.ohem_ratio"]) != 3.0) == (params["loss.db.main"] == "bce")
    for trial in trials:
        run = runs[f"trial {trial['number']}"]
        assert run.data.tags[PARENT_TAG] == runs["s"].info.run_id
        history = client.get_metric_history(run.info.run_id, "hmean")
        assert [m.step for m in history] == list(range(1, EPOCHS + 1))
    assert "Tune" not in sweep.errors()  # the terminal is ours
    assert "raylet" not in sweep.errors()
