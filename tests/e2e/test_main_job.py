"""The whole house once, with real Ray, real MLflow and real files: teacher, sweep, best student, its figures."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ocr_ray.config import load_config
from ocr_ray.demo import DemoScale, run_demo
from ocr_ray.pipeline import PipelineResult
from ocr_ray.predict import evaluate_file
from ocr_ray.spaces import load_space
from ocr_ray.tracking import PARENT_TAG
from ocr_ray.weights.load import read_weights

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


def test_the_sweep_leaves_its_page_which_says_what_the_shared_teacher_saved(result: PipelineResult) -> None:
    page = (result.sweep.folder / "report.html").read_text()
    assert "answers spared the trials about" in page


def test_the_configs_it_leaves_are_ones_that_the_commands_take(result: PipelineResult, out: Path) -> None:
    cml = load_config(out / "cml.yaml")
    assert load_space(out / "space.yaml", cml).varied == tuple(result.sweep.trials[0].values)
    assert load_config(out / "dml.yaml").recipe == "dml"
    assert (out / "pictures" / "overview.jpg").stat().st_size > 10_000
