"""Sweeps of real training runs on a real cluster of our own, written to a real database."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from ocr_ray.config import RecipeConfig, load_config
from ocr_ray.data.synth import SynthConfig, render_set
from ocr_ray.errors import ClusterError, RunError
from ocr_ray.search.trials import TrialBook
from ocr_ray.session import connected
from ocr_ray.settings import ClusterConfig
from ocr_ray.spaces import space_from_plain
from ocr_ray.tracking import PARENT_TAG
from ocr_ray.tune import SweepResult, sweep

TINY = Path(__file__).resolve().parents[1] / "tiny_student.yaml"
DIVERGES, STANDS_STILL = 1e30, 1e-9
SPACE = {
    "optim.lr": {"choice": [1e-2, STANDS_STILL, DIVERGES]},
    "loss.db.beta": {"uniform": [1.0, 20.0]},
    "optim.warmup_epochs": 0,
}


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return render_set(tmp_path_factory.mktemp("data"), SynthConfig(train=16, val=4), seed=0)


def tiny(labels: tuple[Path, Path], storage: Path, *overrides: str) -> RecipeConfig:
    train, val = labels
    given = [f"data.train=[{train}]", f"data.val=[{val}]", f"ray.storage={storage}", "ray.cpus_per_worker=0.45"]
    return load_config(TINY, [*given, *overrides])


@pytest.fixture(scope="module")
def _another_cluster() -> Iterator[None]:
    """One more cluster on this machine: a run's processes must not take it for theirs, nor fail to choose."""
    program = "import ray; ray.init('local', num_cpus=1, include_dashboard=False); print('up', flush=True); input()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        yield
        other.communicate("\n", timeout=60)


@pytest.fixture(scope="module", autouse=True)
def _cluster(_another_cluster: None) -> Iterator[None]:
    """One for all sweeps of this file; those of the command line start their own."""
    with connected(ClusterConfig()):
        yield


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def result(labels: tuple[Path, Path], storage: Path) -> SweepResult:
    """Four trials, two at a time. By the seed: the config's own values, a rate that diverges, one that learns, and one
    so low that its trial is the worst when it comes to the rung at epoch 4 of 6."""
    cfg = tiny(
        labels,
        storage,
        *("optim.epochs=6", "data.epoch_size=40", "data.augment.crop_width=128", "data.augment.crop_height=128"),
        *("eval.resize.limit_side_len=320", "sweep.trials=4", "sweep.searcher=random", "sweep.seed=2"),
        *("sweep.scheduler=asha", "sweep.grace_epochs=4", "sweep.reduction_factor=2", "sweep.max_concurrent=2"),
    )
    return sweep(cfg, space_from_plain(SPACE, cfg, "space"), name="first")


@pytest.fixture(scope="module")
def runs(result: SweepResult, storage: Path) -> dict[str, Run]:
    """MLflow's runs by name."""
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return {run.info.run_name: run for run in found}


def test_every_trial_ends_as_its_rate_lets_it(result: SweepResult) -> None:
    assert [t.number for t in result.trials] == [1, 2, 3, 4]
    ends = {1e-2: "finished", STANDS_STILL: "stopped early", DIVERGES: "failed"}
    assert [t.end for t in result.trials] == [ends[float(str(t.values["optim.lr"]))] for t in result.trials]
    assert {t.end for t in result.trials} == set(ends.values())  # else the seed draws too little
    for trial in result.trials:
        assert trial.epochs == {"finished": 6, "stopped early": 4, "failed": 0}[trial.end]
        assert ("loss is not finite at step" in trial.reason) == (trial.end == "failed")
        assert trial.seconds > 1


def test_the_first_trial_takes_the_configs_own_values_and_the_fixed_ones_are_not_varied(result: SweepResult) -> None:
    assert result.trials[0].values == {"optim.lr": 1e-2, "loss.db.beta": 10.0}


def test_the_best_is_the_best_over_all_epochs_and_its_file_is_there(result: SweepResult) -> None:
    reached = [t.hmean for t in result.trials if t.hmean is not None]
    assert result.hmean == max(reached) > 0
    assert result.best_trial.values["optim.lr"] == 1e-2
    assert result.best == Path(result.best_trial.best)
    assert result.best.is_file()
    assert result.best.with_suffix(".json").is_file()


def test_the_books_on_disk_say_what_the_result_says(result: SweepResult) -> None:
    book = TrialBook(result.folder, {})
    book.load()
    assert tuple(book.trials) == result.trials


def test_it_is_told_that_so_few_trials_cannot_show_whether_stopping_was_safe(result: SweepResult) -> None:
    assert (result.ranks.finished, result.ranks.stopped) == (2, 1)
    assert result.ranks.lines() == ["early stopping: 2 trials finished, too few to say whether it was safe"]


def test_children_trained_with_what_the_table_says_and_differ_as_it_says(
    result: SweepResult, runs: dict[str, Run]
) -> None:
    trained = [t for t in result.trials if t.epochs]
    for trial in trained:
        params = runs[f"trial {trial.number}"].data.params
        assert {key: params[key] for key in trial.values} == {k: str(v) for k, v in trial.values.items()}
        assert params["optim.warmup_epochs"] == "0.0"  # fixed by the space, in the worker's own words
    one, other = (runs[f"trial {t.number}"].data.params for t in trained if t.values["optim.lr"] == 1e-2)
    assert {key for key in one if one[key] != other[key]} == {"loss.db.beta"}


def test_a_child_that_never_reported_shows_what_was_drawn_and_why_it_failed(
    result: SweepResult, runs: dict[str, Run]
) -> None:
    failed = next(t for t in result.trials if t.end == "failed")
    run = runs[f"trial {failed.number}"]
    assert run.info.status == "FAILED"
    assert run.data.tags["reason"] == failed.reason
    assert run.data.tags["drawn.optim.lr"] == str(DIVERGES)
    assert not run.data.params


def test_early_ends_are_tagged_and_all_children_hang_on_one_finished_parent(
    result: SweepResult, runs: dict[str, Run]
) -> None:
    parent = runs["first"]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["best_trial"] == str(result.best_trial.number)
    assert parent.data.metrics["hmean.best"] == result.hmean
    for trial in result.trials:
        run = runs[f"trial {trial.number}"]
        assert run.data.tags[PARENT_TAG] == parent.info.run_id
        assert run.data.tags["end"] == trial.end
        assert run.data.tags["stopped_early"] == str(trial.end == "stopped early").lower()
        assert run.info.status == ("FAILED" if trial.end == "failed" else "FINISHED")


def test_metrics_come_by_epoch_and_without_what_tune_adds(
    result: SweepResult, runs: dict[str, Run], storage: Path
) -> None:
    best = runs[f"trial {result.best_trial.number}"]
    history = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}").get_metric_history(best.info.run_id, "hmean")
    assert [m.step for m in history] == list(range(1, result.best_trial.epochs + 1))
    names = set(best.data.metrics)
    assert {"lr", "loss.total", "loss.db.Student.shrink", "hmean.Student", "images_per_s", "time.step_s"} <= names
    assert not names & {"pid", "timestamp", "training_iteration", "time_total_s", "epoch", "done"}


def test_config_and_weights_are_artifacts(result: SweepResult, runs: dict[str, Run], storage: Path) -> None:
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    best = runs[f"trial {result.best_trial.number}"].info.run_id
    assert {a.path for a in client.list_artifacts(best)} == {"best", "config.yaml"}
    fetched = Path(client.download_artifacts(best, "config.yaml", str(storage)))
    assert load_config(fetched).loss.db.beta == result.best_trial.values["loss.db.beta"]
    weights = {a.path for a in client.list_artifacts(runs["first"].info.run_id, "best")}
    assert "best/student.safetensors" in weights


def test_a_name_that_is_taken_is_not_overwritten(labels: tuple[Path, Path], storage: Path, result: SweepResult) -> None:
    cfg = tiny(labels, storage)
    space = space_from_plain({"optim.lr": {"uniform": [1e-3, 1e-2]}}, cfg, "space")
    with pytest.raises(RunError, match="first: is there already"):
        sweep(cfg, space, name="first")
    with pytest.raises(RunError, match="no run to resume here"):
        sweep(cfg, space, name="second", resume=True)


def test_another_space_needs_another_name(result: SweepResult) -> None:
    cfg = load_config(result.folder / "config.yaml")
    wider = space_from_plain({**SPACE, "loss.db.beta": {"uniform": [1.0, 30.0]}}, cfg, "space")
    with pytest.raises(
        RunError, match=r"first: was started with loss.db.beta uniform \[1, 20\], now it is uniform \[1, 30"
    ):
        sweep(cfg, wider, name="first", resume=True)


def test_trials_that_can_never_be_placed_are_refused_before_any_starts(
    labels: tuple[Path, Path], tmp_path: Path
) -> None:
    cfg = tiny(labels, tmp_path, "ray.num_workers=3", "ray.cpus_per_worker=1000")
    space = space_from_plain({"optim.lr": {"uniform": [1e-3, 1e-2]}}, cfg, "space")
    with pytest.raises(ClusterError, match=r"no trial can ever be placed: it needs ray.num_workers=3 of 1000 CPU each"):
        sweep(cfg, space, name="huge")
    assert list(tmp_path.iterdir()) == []  # so that the name is still free


def test_a_sweep_of_failures_ends_with_the_first_reason(labels: tuple[Path, Path], tmp_path: Path) -> None:
    cfg = tiny(labels, tmp_path, "sweep.trials=1", "sweep.default_first=false", "optim.warmup_epochs=0")
    space = space_from_plain({"optim.lr": {"loguniform": [1e30, 1e31]}}, cfg, "space")
    with pytest.raises(RunError, match="bad: no trial came through: trial 1: loss is not finite"):
        sweep(cfg, space, name="bad")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    statuses = [r.info.status for r in client.search_runs([e.experiment_id for e in client.search_experiments()])]
    assert statuses == ["FAILED"] * 2


def test_this_process_is_as_before(result: SweepResult) -> None:
    import signal

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert os.environ.get("RAY_ADDRESS") is None
