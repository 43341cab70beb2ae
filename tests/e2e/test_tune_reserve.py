"""The processes of a later trial: there before the trial is, and gone with the sweep; and two objectives of one."""

import io
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from rich.console import Console

from ocr_ray.config import load_config
from ocr_ray.progress import LiveFeed, ProgressEvent
from ocr_ray.search.student import count_parameters
from ocr_ray.spaces import space_from_plain
from ocr_ray.sweep_result import SweepResult
from ocr_ray.tune import sweep
from ocr_ray.typed import with_values

HELD = ("ray::ImplicitFunc", "ray::TrainController", "ray::RayTrainWorker", "ray::PlacementGroupCleaner")
EPOCHS = 40
KEY = "student.detector.neck.out_channels"


class Processes(LiveFeed):
    """Notes Ray's processes by their names at every sign of life of a trial."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.idle: dict[str, set[int]] = {}
        self.held: dict[str, dict[str, int]] = {}
        self.all: set[psutil.Process] = set()
        self._others = set(psutil.Process().children())  # of tests before, e.g. a browser

    def put(self, event: ProgressEvent) -> None:
        if event.phase != "training":
            return
        own = set(psutil.Process().children()) - self._others
        family = own.union(*(process.children(recursive=True) for process in own))
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


@pytest.fixture(scope="module")
def live() -> Processes:
    return Processes()


@pytest.fixture(scope="module")
def result(live: Processes, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    """Two students, of 96 and by the seed of 16 channels in the neck."""
    storage = tmp_path_factory.mktemp("runs")
    settings = ("sweep.trials=2", "sweep.max_concurrent=1", "sweep.against=latency", "sweep.latency_side=64")
    here = (f"ray.storage={storage}", "ray.address=local", f"optim.epochs={EPOCHS}", "eval.every_epochs=20")
    cfg = load_config(Path(tiny[0]), [*tiny[1:], *settings, *here, "ray.cpus_per_worker=0.9", "sweep.seed=2"])
    return sweep(cfg, space_from_plain({KEY: {"choice": [16, 96]}}, cfg, "space"), live=live)


def test_a_second_trial_runs_in_processes_that_were_ready_and_none_outlives_the_sweep(
    result: SweepResult, live: Processes
) -> None:
    assert [trial.epochs for trial in result.trials] == [EPOCHS, EPOCHS]
    second = {name: pid for name, pid in live.held["trial 2"].items() if name in HELD}
    assert len(second) == len(HELD), live.held
    assert set(second.values()) <= live.idle["trial 1"]
    _, alive = psutil.wait_procs(list(live.all), timeout=15)
    assert not alive


def test_hmean_is_weighed_against_what_each_student_costs(result: SweepResult) -> None:
    wide, narrow = result.trials
    assert (wide.values, narrow.values) == ({KEY: 96}, {KEY: 16})
    cfg = load_config(result.folder / "config.yaml")
    for trial in result.trials:
        assert trial.parameters == count_parameters(with_values(cfg, trial.values, "trial").student.detector)
    assert wide.latency_ms is not None
    assert narrow.latency_ms is not None
    assert 0 < narrow.latency_ms < wide.latency_ms
    assert result.pareto is not None
    assert result.pareto[0] == narrow  # the cheapest is always of the set
    assert (wide in result.pareto) == ((wide.hmean or 0) > (narrow.hmean or 0))
    assert result.best_trial.hmean == max(trial.hmean or 0 for trial in result.trials)
    client = MlflowClient(f"sqlite:///{result.folder.parent / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    metrics = {run.info.run_name: run.data.metrics for run in runs}
    tags = {run.info.run_name: run.data.tags for run in runs}
    assert metrics["trial 2"]["student.latency_ms"] == narrow.latency_ms
    assert metrics["trial 2"]["student.parameters"] == narrow.parameters
    assert tags[result.name]["pareto_trials"] == ", ".join(str(trial.number) for trial in result.pareto)
