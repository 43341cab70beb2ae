"""The whole house once, with real Ray, real MLflow and real files: teacher, sweep, best student, its figures."""

import io
import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rich.console import Console

from ocr_ray.config import CMLConfig, DMLConfig, load_config
from ocr_ray.demo import DemoScale, run_demo
from ocr_ray.errors import DataError, RunError
from ocr_ray.pipeline import PipelineResult, run_pipeline
from ocr_ray.predict import evaluate_file
from ocr_ray.progress import LiveFeed
from ocr_ray.rerun import rerun
from ocr_ray.spaces import load_space
from ocr_ray.stages import Stages
from ocr_ray.sweep_result import finished_sweep
from ocr_ray.tracking import PARENT_TAG
from ocr_ray.typed import with_values
from ocr_ray.weights.load import read_weights
from ocr_ray.whence import whence

SMALL = DemoScale(64, 0.7, 1.4, dml_steps=16, cml_steps=24, limit_side_len=128, limit_type="max", val=4, train=16)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("job") / "demo"


@pytest.fixture(scope="module")
def result(out: Path) -> PipelineResult:
    return run_demo(out, scale=SMALL)


def test_a_teacher_came_out_of_the_pair(result: PipelineResult) -> None:
    card = json.loads(result.teacher.best.with_suffix(".json").read_text())
    assert card["which"] in ("Student", "Student2")
    assert card["hmean"] == result.teacher.hmean
    assert card["recipe"] == "dml"
    assert card["config"]["student"]["detector"]["backbone"]["kind"] == "resnet_vd"
    assert len(card["data_digest"]) == 64


def test_every_trial_was_tried(result: PipelineResult) -> None:
    trials = result.sweep.trials
    assert len(trials) == 4
    assert {t.end for t in trials} <= {"finished", "stopped early"}
    assert any(t.end == "finished" and t.epochs == 4 for t in trials)
    assert trials[0].values == {
        "optim.lr": 1e-2,
        "loss.distill.weight": 1.0,
        "loss.dml.weight": 1.0,
        "loss.db.beta": 10.0,
    }
    assert result.sweep.hmean == max(t.hmean or 0.0 for t in trials)


def test_teacher_and_students_learn(result: PipelineResult, out: Path) -> None:
    """By their losses: so few steps find no words yet."""
    client = MlflowClient(f"sqlite:///{out / 'runs' / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    for name in (result.teacher.name, "trial 1"):
        (run,) = [run for run in runs if run.info.run_name == name]
        for part in ("db.Student.shrink", "db.Student2.shrink"):
            losses = [m.value for m in client.get_metric_history(run.info.run_id, f"loss.{part}")]
            assert losses[-1] < losses[0], (name, part, losses)


def test_the_handed_out_file_is_the_best_trials_and_gives_its_figures(result: PipelineResult, out: Path) -> None:
    assert result.student.read_bytes() == Path(result.sweep.best_trial.best).read_bytes()
    assert result.evaluation.score.hmean == pytest.approx(result.sweep.hmean, abs=0.01)
    again = evaluate_file(result.student, out / "data" / "val_label.txt", progress=False)
    assert again.resize == "longest side at most 128"  # the rule travelled with the weights
    assert again.score == result.evaluation.score
    assert list(read_weights(result.student).arrays) == [""]


def test_readers_of_the_exported_file_find_what_the_weights_find(result: PipelineResult, out: Path) -> None:
    exported = result.exported
    assert exported is not None
    assert exported.gate is not None
    assert exported.gate.passed
    assert exported.path == out / "student.onnx"
    assert exported.gate.expected == result.evaluation.score
    found = whence(exported.path, storage=out / "runs")
    assert found.run is not None
    assert found.run.run_id == exported.card.origin.run_id
    assert found.run.name == f"trial {result.sweep.best_trial.number}"
    assert found.run.hmean == pytest.approx(result.sweep.hmean)
    versions = MlflowClient(f"sqlite:///{out / 'runs' / 'mlflow.db'}").search_model_versions()
    assert [version.run_id for version in versions] == [found.run.run_id]  # the pipeline registered it
    by_digest = whence(result.student, storage=out / "runs")  # a copy: holds no id, and lies in no run's folder
    assert by_digest.run == found.run


def test_mlflow_holds_the_sweep_as_parent_and_its_trials_as_children(result: PipelineResult, out: Path) -> None:
    client = MlflowClient(f"sqlite:///{out / 'runs' / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "ocr_ray"]
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if run.info.run_name == result.sweep.name]
    children = [run for run in runs if run.data.tags.get(PARENT_TAG) == parent.info.run_id]
    assert len(children) == 4
    assert parent.data.tags["best_trial"] == str(result.sweep.best_trial.number)
    shown = {tuple(str(v) for v in trial.values.values()) for trial in result.sweep.trials}
    keys = list(result.sweep.trials[0].values)
    assert {tuple(child.data.params[key] for key in keys) for child in children} == shown
    assert len(shown) == 4
    child = children[0]
    history = client.get_metric_history(child.info.run_id, "loss.distill.Student")
    assert [point.step for point in history] == list(range(1, len(history) + 1))
    assert {
        "lr",
        "hmean",
        "hmean.Student2",
        "loss.total",
        "loss.dml",
        "loss.db.Student.shrink",
    } <= child.data.metrics.keys()
    (teacher,) = [run for run in runs if run.info.run_name == result.teacher.name]
    assert "best/student.safetensors" in [f.path for f in client.list_artifacts(teacher.info.run_id, "best")]
    assert "best/student.safetensors" in [f.path for f in client.list_artifacts(parent.info.run_id, "best")]


def test_a_trial_says_what_it_cost_and_what_the_shared_teacher_saved_it(result: PipelineResult, out: Path) -> None:
    client = MlflowClient(f"sqlite:///{out / 'runs' / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    (parent,) = [run for run in runs if run.info.run_name == result.sweep.name]
    children = [run for run in runs if run.data.tags.get(PARENT_TAG) == parent.info.run_id]
    read = [child.data.metrics["teacher.answers_read"] for child in children]
    assert sum(read) == parent.data.metrics["teacher.answers_read"]
    each = parent.data.metrics["teacher.computed_s"] / parent.data.metrics["teacher.pictures"]
    by_name = {child.info.run_name: child for child in children}
    for trial in result.sweep.trials:
        child = by_name[f"trial {trial.number}"]
        assert 0 < child.data.metrics["teacher.saved_s"] < 3 * each * child.data.metrics["teacher.answers_read"]
        assert 0 < child.data.metrics["device_hours"] <= trial.seconds / 3600  # up to its last report
        epochs = client.get_metric_history(child.info.run_id, "device_hours.epoch")
        assert [point.step for point in epochs] == list(range(1, trial.epochs + 1))
        assert sum(point.value for point in epochs) < child.data.metrics["device_hours"]
        assert child.data.metrics["rung"] == 1
        assert child.data.metrics["images_per_s"] > 0
        reason = child.data.tags.get("reason", "")
        assert reason.startswith("below the best half at epoch 2 (") == (trial.end == "stopped early")
    total = sum(trial.seconds for trial in result.sweep.trials) / 3600
    assert parent.data.metrics["device_hours"] == pytest.approx(total, abs=1e-6)
    found = client.search_runs(
        [parent.info.experiment_id], "tags.stopped_early = 'false' and params.`loss.dml.weight` = '1.0'"
    )
    assert "trial 1" in [run.info.run_name for run in found]  # the config's own values; nobody ends it at the rung


def test_a_trial_can_be_run_again_and_gets_the_same_losses(result: PipelineResult, out: Path) -> None:
    """With its teacher among its nets, where the trial read the answers of the one that all trials shared."""
    uri = f"sqlite:///{out / 'runs' / 'mlflow.db'}"
    client = MlflowClient(uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "ocr_ray"]
    (trial,) = client.search_runs([experiment.experiment_id], f"tags.trial_id = '{result.sweep.best_trial.trial_id}'")
    again = rerun(trial.info.run_id, uri, name="again")
    assert again.equal, again.verdict
    (run,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'again'")
    assert run.data.tags["rerun_of"] == trial.info.run_id
    for metric in ("loss.total", "loss.distill.Student", "hmean"):
        histories = [{m.step: m.value for m in client.get_metric_history(r.info.run_id, metric)} for r in (trial, run)]
        assert histories[0] == histories[1]
        assert len(histories[0]) == result.sweep.best_trial.epochs
    assert run.data.tags["digest.teacher.weights"] == trial.data.tags["digest.teacher.weights"]


def test_a_sweep_is_no_run_and_other_data_are_refused(result: PipelineResult, out: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{out / 'runs' / 'mlflow.db'}"
    client = MlflowClient(uri)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    ids = {run.info.run_name: run.info.run_id for run in runs}
    best = ids[f"trial {result.sweep.best_trial.number}"]
    with pytest.raises(RunError, match=rf"is a sweep, expected one of its trials, e.g. its best: {best}"):
        rerun(ids[result.sweep.name], uri)
    fewer = out / "data" / "fewer.txt"
    fewer.write_text("\n".join((out / "data" / "val_label.txt").read_text().splitlines()[:-1]))
    with pytest.raises(DataError, match=r"data\.val: other labels or paths than then .* --other-data trains on what"):
        rerun(best, uri, [f"data.val={fewer}"])


def test_the_sweep_leaves_its_page_which_says_what_the_shared_teacher_saved(result: PipelineResult) -> None:
    page = (result.sweep.folder / "report.html").read_text()
    assert "answers spared the trials about" in page


def test_the_configs_it_leaves_are_ones_that_the_commands_take(result: PipelineResult, out: Path) -> None:
    cml = load_config(out / "cml.yaml")
    assert load_space(out / "space.yaml", cml).varied == tuple(result.sweep.trials[0].values)
    assert load_config(out / "dml.yaml").recipe == "dml"
    assert (out / "pictures" / "overview.jpg").stat().st_size > 10_000


def test_the_same_command_again_takes_what_is_there_and_trains_nothing(result: PipelineResult, out: Path) -> None:
    client = MlflowClient(f"sqlite:///{out / 'runs' / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "ocr_ray"]
    before = len(client.search_runs([experiment.experiment_id]))
    result.student.unlink()
    stages = Stages(load_dml(out), load_cml(out), load_space(out / "space.yaml", load_cml(out)))
    with LiveFeed(Console(file=io.StringIO())) as live:
        again = run_pipeline(stages, result.student, live)
    assert again.teacher == result.teacher
    assert (again.sweep.trials, again.sweep.best_trial) == (result.sweep.trials, result.sweep.best_trial)
    assert (again.sweep.hmean, again.sweep.taught) == (result.sweep.hmean, result.sweep.taught)
    assert again.evaluation.score == result.evaluation.score
    assert len(client.search_runs([experiment.experiment_id])) == before
    assert json.loads(result.student.with_suffix(".json").read_text())["hmean"] == result.sweep.hmean
    assert again.sweep.tested is None
    tested = with_values(load_cml(out), {"data.test": list(load_cml(out).data.val)}, "test")
    assert finished_sweep(result.sweep.folder, load_cml(out)) is not None
    assert finished_sweep(result.sweep.folder, tested) is None  # it is asked for now: a resume looks


def load_dml(out: Path) -> DMLConfig:
    cfg = load_config(out / "dml.yaml")
    assert isinstance(cfg, DMLConfig)
    return cfg


def load_cml(out: Path) -> CMLConfig:
    cfg = load_config(out / "cml.yaml")
    assert isinstance(cfg, CMLConfig)
    return cfg
