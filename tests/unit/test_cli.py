"""The commands as a user types them, run in this process: help, examples, mistakes, and the figures of `eval`."""

import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from ocr_ray.cli import app, main
from ocr_ray.data.synth import SynthConfig, render_set
from ocr_ray.model_card import ModelCard, Origin, save_detector
from ocr_ray.models.detector import Detector

COMMANDS = [
    "demo",
    "train",
    "tune",
    "rerun",
    "status",
    "stop",
    "report",
    "compare",
    "eval",
    "pipeline",
    "predict",
    "inspect",
    "extract",
    "convert",
    "export",
    "whence",
    "register",
    "promote",
    "weights",
    "weights fetch",
    "data check",
    "data icdar2015",
    "data synth",
    "data show",
    "space show",
]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Types `ocr-ray ARGUMENTS...`; gives exit code, standard output and standard error."""

    def type_in(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ocr-ray", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return type_in


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "set"
    render_set(folder, SynthConfig(train=2, val=2, width=160, height=128), seed=3)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "student.safetensors"
    save_detector(path, Detector(ModelCard().detector), ModelCard(origin=Origin(run="a test")))
    return path


def leaf_commands(group: typer.Typer, prefix: str = "") -> list[str]:
    names = [f"{prefix}{c.name}" for c in group.registered_commands]
    for sub in group.registered_groups:
        assert sub.typer_instance is not None
        names += leaf_commands(sub.typer_instance, f"{prefix}{sub.name} ")
        if sub.typer_instance.registered_callback:
            names.append(f"{prefix}{sub.name}")
    return names


def test_the_list_of_commands_is_this_one() -> None:
    assert sorted(leaf_commands(app)) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_parses(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "300", "TERM": "dumb"})
    assert result.exit_code == 0
    found = re.search(rf"(ocr-ray {command}\b[^`│\n]*)", result.output.split("Example:", 1)[1])
    assert found, result.output
    arguments = shlex.split(found.group(1).strip())[1:]
    context = typer.main.get_command(app).make_context("ocr-ray", arguments, resilient_parsing=False)
    while arguments and hasattr(context.command, "resolve_command"):
        name, sub, arguments = context.command.resolve_command(context, arguments)
        if name is None or sub is None:
            break
        context = sub.make_context(name, arguments, parent=context)  # raises for an option that is not there
        arguments = [*context._protected_args, *context.args] if hasattr(sub, "resolve_command") else []


def test_eval_gives_its_figures_alone_as_json(run: Run, weights: Path, rendered: Path) -> None:
    code, out, err = run("eval", weights, rendered / "val_label.txt", "--json", "--limit-side-len", "64")
    assert code == 0, err
    figures = json.loads(out)
    expected = {"precision", "recall", "hmean", "images", "matched", "ground_truth", "detected", "resize"}
    assert expected <= figures.keys()
    assert figures["images"] == 2
    assert figures["resize"] == "shortest side at least 64"
    assert figures["hmean"] == 0
    assert figures["diagnosis"]


def test_export_writes_a_file_that_whence_knows(run: Run, weights: Path, rendered: Path, tmp_path: Path) -> None:
    code, out, err = run("export", weights, tmp_path / "x.onnx", "--gate", rendered / "val_label.txt")
    assert code == 0, err
    assert "onnxruntime" in out
    assert "OpenCV" in out
    assert out.splitlines()[-1].startswith(f"{tmp_path / 'x.onnx'}  2.2")
    code, out, err = run("whence", tmp_path / "x.onnx", "--storage", tmp_path)
    assert code == 0, err
    assert "a test" in out
    assert f"not found: {tmp_path}/mlflow.db: no tracking database here" in out
    assert run("eval", tmp_path / "x.onnx", rendered / "val_label.txt", "--model", "Teacher")[0] == 2


def test_data_check_ends_with_1_when_something_would_be_dropped(run: Run, rendered: Path, tmp_path: Path) -> None:
    assert run("data", "check", rendered / "train_label.txt", "--val", rendered / "val_label.txt")[0] == 0
    broken = tmp_path / "labels.txt"
    broken.write_text((rendered / "train_label.txt").read_text() + "gone.jpg\t[]\n")
    code, out, _ = run("data", "check", broken, "--root", rendered)
    assert code == 1
    assert "gone.jpg" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train nope.yaml", "nope.yaml: No such file"),
        ("train {configs}/ppocrv3_det_student.yaml", "data.train: expected a label file"),
        ("train {configs}/ppocrv3_det_student.yaml optim.lrr=1", "optim.lrr: Key 'lrr' is not a key of 'OptimConfig'"),
        ("train {configs}/ppocrv3_det_student.yaml optim.lr", "optim.lr: expected key=value"),
        ("train {configs}/ppocrv3_det_student.yaml optim.lr=fast", "optim.lr: Value 'fast'"),
        ("train {configs}/ppocrv3_det_student.yaml optim.lr=[1", "not a YAML value"),
        ("train {configs}/ppocrv3_det_student.yaml data.train=no.txt data.val=no.txt", "no.txt: cannot be read"),
        ("train {configs}/ppocrv3_det_cml.yaml data.train=no.txt", "teacher.weights: expected a file"),
        ("tune {configs}/ppocrv3_det_student.yaml nope.yaml", "nope.yaml: No such file"),
        ("rerun abc", "runs/mlflow.db: no tracking database here"),
        ("rerun abc --tracking ftp://x", "ftp://x"),
        ("export nope.safetensors x.onnx", "nope.safetensors: no such file"),
        ("export {weights} x.pt", "x.pt: expected a file to write that ends in .onnx"),
        ("export {weights} x.onnx --int8", "export: --int8 and --calibrate LABELS go together"),
        ("export {weights} x.onnx --gate no.txt", "no.txt: cannot be read"),
        ("whence nope.onnx", "nope.onnx: no such file"),
        ("report nope", "nope: expected the folder of a sweep, or the name of one in runs/"),
        ("compare nope nope", "nope: expected the folder of a sweep"),
        ("eval nope.safetensors {rendered}/val_label.txt", "nope.safetensors: no such file"),
        ("eval {weights} nope.txt", "nope.txt: cannot be read"),
        ("eval {weights} {rendered}/val_label.txt --model Teacher", "no sub-model 'Teacher'"),
        ("eval {weights} {rendered}/val_label.txt --limit-type middle", "limit_type"),
        ("predict {weights} nope.jpg --out {out}", "nope.jpg: cannot be read"),
        ("inspect nope.onnx {rendered}/val_label.txt --out {out}", "nope.onnx: no such file"),
        ("inspect {weights} nope.txt --out {out}", "nope.txt: cannot be read"),
        ("inspect {weights} {rendered}/val_label.txt --out {out} --write {out}/x.onnx", "ends in .safetensors"),
        ("inspect {weights} {rendered}/val_label.txt --out {out} --write {weights}", "expected another one to write"),
        ("data show nope.txt", "nope.txt: cannot be read"),
        ("data show {rendered}/train_label.txt --out {out}/x.gif", "expected a name that ends in .jpg"),
        ("data show {rendered}/train_label.txt data.augment.rotate_degres=3", "data.augment.rotate_degres: Key"),
        ("extract {weights} --out {out}/x.safetensors", "no sub-model 'Student'"),
        ("convert {weights} {out}/x.bin", "expected a file to write that ends in .safetensors or .pdparams"),
        ("weights fetch nope", "nope: no published weights of that name"),
        ("data icdar2015 nope nope --out {out}/x.txt", "nope"),
        ("data synth {out}/set --train 0", "expected at least 1 picture"),
        ("data synth {rendered}", "holds a set already"),
        ("train {configs}/ppocrv3_det_student.yaml ray.storage={weights}/runs", "ray.storage"),
        ("pipeline nope.yaml", "nope.yaml: No such file"),
        ("pipeline {configs}/pipelines/ppocrv3_det.yaml", "data.train: expected a label file"),
        ("pipeline {configs}/pipelines/ppocrv3_det.yaml dml.sweep.trils=1", "sweep.trils: Key 'trils'"),
        ("demo --train x.txt", "--train and --val go together"),
    ],
)
def test_a_mistake_is_one_line_exit_code_2_and_no_file(
    run: Run,
    weights: Path,
    rendered: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    configs = Path(__file__).resolve().parents[2] / "configs"
    places = {"configs": configs, "weights": weights, "rendered": rendered, "out": tmp_path / "out"}
    code, out, err = run(*arguments.format(**places).split())
    assert code == 2
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("ocr-ray: ")
    assert message in last
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_space_shows_its_keys_and_draws_for_a_recipe_that_it_fits(run: Run) -> None:
    space = Path(__file__).resolve().parents[2] / "search_spaces" / "student_finetune.yaml"
    code, out, _ = run("space", "show", space, "-n", 3)
    assert code == 0
    head, *rows = out.splitlines()
    assert head == f"{space}: for the defaults of the recipe student (it fits dml and cml too)"
    assert any(row.split() == ["loss.db.beta", "loguniform", "[1.25,", "80]", "10"] for row in rows)
    assert [row.split()[0] for row in rows[-3:]] == ["1", "2", "3"]
    config = space.parents[1] / "configs" / "ppocrv3_det_student.yaml"
    code, out, _ = run("space", "show", space, "--config", config, "-n", 0, "optim.lr=1")
    assert code == 0
    assert out.startswith(f"{space}: for {config}\n")
    assert "(outside)" in out


def test_a_draw_whose_condition_does_not_hold_shows_the_configs_own_value(run: Run, tmp_path: Path) -> None:
    space = tmp_path / "s.yaml"
    space.write_text(
        "loss.db.main: {choice: [dice, bce]}\nloss.db.ohem_ratio: {uniform: [4, 9], when: {loss.db.main: bce}}\n"
    )
    code, out, _ = run("space", "show", space, "-n", 20)
    assert code == 0
    draws = [row.split() for row in out.splitlines()[-20:]]
    assert {main for _, main, _ in draws} == {"dice", "bce"}
    assert all((ratio == "(3)") == (main == "dice") for _, main, ratio in draws)


def test_a_space_that_fits_no_recipe_is_one_line_with_what_each_says(run: Run, tmp_path: Path) -> None:
    space = tmp_path / "s.yaml"
    space.write_text("loss.distill.weight: {uniform: [1, 2]}\nstudent.detector.backbone.layers: {choice: [18, 34]}\n")
    code, _, err = run("space", "show", space)
    assert code == 2
    assert err.count("\n") == 1
    assert err.startswith(
        f"ocr-ray: {space}: fits the defaults of no recipe (--config names a config): dml: loss.distill"
    )
    assert "; cml: student.detector.backbone.layers: " in err
