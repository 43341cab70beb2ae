"""The loop without Ray: it learns, resumes bit-equal, stops on what is not finite, and trains new parts alone first."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from ocr_ray.config import CMLConfig, DMLConfig, RecipeConfig, StudentConfig
from ocr_ray.data.compact import Loaded
from ocr_ray.data.on_device import on_device
from ocr_ray.data.synth import SynthConfig, render_set
from ocr_ray.engine.checkpoint import RunState, load_checkpoint, save_checkpoint
from ocr_ray.engine.loop import KEPT, EpochReport, Training, fit, update
from ocr_ray.engine.meter import LossNotFinite
from ocr_ray.engine.optim import build_adam
from ocr_ray.engine.teacher import prepared
from ocr_ray.errors import DataError, RunError
from ocr_ray.model_card import ModelCard, save_detector
from ocr_ray.models.batch_norm import BatchNorm
from ocr_ray.models.detector import Detector, DetectorConfig
from ocr_ray.recipes import build_model, build_training
from ocr_ray.typed import with_values

TINY = {
    "data.batch_size": 2,
    "data.epoch_size": 8,
    "data.num_workers": 0,
    "data.augment.crop_width": 64,
    "data.augment.crop_height": 64,
    "data.augment.scale_min": 0.7,
    "data.augment.scale_max": 1.4,
    "optim.lr": 1e-2,
    "optim.epochs": 4,
    "optim.warmup_epochs": 0.5,
    "eval.resize.limit_side_len": 64,
    "eval.resize.limit_type": "max",
    "eval.every_epochs": 2,
    "student.detector.backbone.scale": 0.35,
}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "set"
    render_set(folder, SynthConfig(train=12, val=3, width=160, height=128), seed=1)
    return folder


@pytest.fixture
def tiny(rendered: Path) -> RecipeConfig:
    labels = {"data.train": str(rendered / "train_label.txt"), "data.val": str(rendered / "val_label.txt")}
    return with_values(StudentConfig(), {**TINY, **labels}, "test")


def training_of(cfg: RecipeConfig) -> tuple[Training, torch.optim.Adam]:
    training = build_training(cfg, build_model(cfg), torch.device("cpu"))
    return training, build_adam([p for p in training.model.parameters() if p.requires_grad], cfg.optim)


def numbers(report: EpochReport) -> dict[str, float]:
    return {name: value for name, value in report.metrics.items() if not name.startswith(("time.", "images_per_s"))}


def test_it_learns(tiny: RecipeConfig) -> None:
    training, optimizer = training_of(tiny)
    reports: list[EpochReport] = []
    state = fit(training, optimizer, RunState(), reports.append)
    assert state.epoch == 4
    assert state.step == 16
    assert reports[-1].metrics["loss.total"] < 0.8 * reports[0].metrics["loss.total"]
    assert [bool(r.evaluations) for r in reports] == [False, True, False, True]
    parts = [v for k, v in reports[0].metrics.items() if k.startswith("loss.db.")]
    assert sum(parts) == pytest.approx(reports[0].metrics["loss.total"], rel=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("made", [False, True])
def test_a_step_never_waits_for_the_gpu(tiny: RecipeConfig, made: bool, precision: Literal["fp32", "bf16"]) -> None:
    """Of a pair that reads stored answers: from a pinned batch to the update, with no value read back."""
    cuda = torch.device("cuda")
    values = {"data.on_device": made, "student.detector.backbone.scale": 0.35, "run.precision": precision}
    cfg = with_values(CMLConfig(), {**values, "data.train": list(tiny.data.train), "data.val": list(tiny.data.val)}, "")
    cfg = with_values(cfg, {k: v for k, v in TINY.items() if k.startswith(("data.", "eval."))}, "test")
    training = build_training(cfg, build_model(cfg, with_teacher=False), cuda)
    optimizer = build_adam(list(training.model.parameters()), cfg.optim)
    training.sampler.set_epoch(0)
    batches = list(training.loader)

    def step(batch: Loaded) -> None:
        there = on_device(batch, cuda)
        images = prepared(there.images, training.normalize, cuda, channels_last=True)
        targets = replace(there.targets, teacher=there.targets.shrink_map > 0)
        update(training.model, optimizer, images, targets, training.loss, precision, clip_norm=5.0)

    step(batches[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(batches[1])
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recipe", [StudentConfig(), CMLConfig(), DMLConfig()], ids=lambda recipe: recipe.recipe)
def test_graphs_change_no_number(
    tiny: RecipeConfig, recipe: RecipeConfig, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses and scores of each epoch, weights and statistics in the end; the last batch of an epoch is a small one."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    values: dict[str, Any] = {**TINY, "data.train": list(tiny.data.train), "data.val": list(tiny.data.val)}
    values |= {"run.precision": precision, "data.batch_size": 3, "data.augment.copy_paste.enabled": False}
    if isinstance(recipe, DMLConfig):
        values.pop("student.detector.backbone.scale")
        values |= {"student.detector.backbone.width": 0.25, "student.detector.neck.out_channels": 32}
    if isinstance(recipe, CMLConfig):
        torch.manual_seed(5)
        save_detector(tmp_path / "teacher.safetensors", Detector(DetectorConfig()), ModelCard())
        values["teacher.weights"] = str(tmp_path / "teacher.safetensors")
    found = []
    for graphs in (False, True):
        cfg = with_values(recipe, {**values, "run.cuda_graphs": graphs}, "test")
        training = build_training(cfg, build_model(cfg), torch.device("cuda"))
        optimizer = build_adam([p for p in training.model.parameters() if p.requires_grad], cfg.optim)
        reports: list[dict[str, float]] = []
        fit(training, optimizer, RunState(), lambda report, to=reports: to.append(numbers(report)))  # type: ignore[misc]
        found.append((reports, training.model.state_dict()))
    assert found[1][0] == found[0][0]
    for name, value in found[0][1].items():
        assert torch.equal(found[1][1][name], value), name


@pytest.mark.parametrize("on_device", [False, True])
def test_a_resumed_run_is_bit_equal(tiny: RecipeConfig, tmp_path: Path, on_device: bool) -> None:
    tiny = with_values(tiny, {"data.on_device": on_device}, "test")
    training, optimizer = training_of(tiny)
    whole: list[dict[str, float]] = []

    def keep(report: EpochReport) -> None:
        whole.append(numbers(report))
        if report.state.epoch == 2:
            save_checkpoint(tmp_path, training.model, report.optimizer, report.state)

    fit(training, optimizer, RunState(), keep)

    resumed, its_optimizer = training_of(with_values(tiny, {"run.seed": tiny.run.seed}, "test"))
    for parameter in resumed.model.parameters():
        torch.nn.init.zeros_(parameter)  # all that counts comes from the checkpoint
    state = load_checkpoint(tmp_path, resumed.model, its_optimizer)
    rest: list[dict[str, float]] = []
    fit(resumed, its_optimizer, state, lambda report: rest.append(numbers(report)))
    assert rest == whole[2:]
    for one, other in zip(training.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_second_set_is_reported_and_changes_nothing(tiny: RecipeConfig, rendered: Path, tmp_path: Path) -> None:
    """Of the better student of a pair, and by way of a checkpoint the figure of the best epoch stays known."""
    tiny = replace(DMLConfig(), data=tiny.data, student=tiny.student, optim=tiny.optim, eval=tiny.eval)
    both = with_values(tiny, {"data.keep": [str(rendered / "train_label.txt")], "data.keep_size": 2}, "test")
    runs: list[list[EpochReport]] = []
    for cfg in (tiny, both):
        reports: list[EpochReport] = []
        training, optimizer = training_of(cfg)
        state = fit(training, optimizer, RunState(), reports.append)
        runs.append(reports)
    assert [sample.name for sample in training.keep] == ["train/00000.jpg", "train/00006.jpg"]
    without, with_keep = ([numbers(r) for r in run] for run in runs)
    names = {"keep.hmean", "keep.precision", "keep.recall"}
    assert [r.keys() & names for r in with_keep] == [set(), names, set(), names]
    assert [{k: v for k, v in r.items() if not k.startswith("keep.")} for r in with_keep] == without
    of_best = with_keep[state.best_epoch - 1]["keep.hmean"]
    assert [r.get(KEPT) for r in with_keep][-1] == state.best_keep == of_best
    save_checkpoint(tmp_path, training.model, optimizer, state)
    assert load_checkpoint(tmp_path, training.model, optimizer) == state


def test_a_checkpoint_of_another_model_is_refused(tiny: RecipeConfig, tmp_path: Path) -> None:
    training, optimizer = training_of(tiny)
    save_checkpoint(tmp_path, training.model, optimizer, RunState())
    wider, its_optimizer = training_of(with_values(tiny, {"student.detector.neck.out_channels": 48}, "test"))
    with pytest.raises(RunError, match=r"is a checkpoint of another model: neck|is a checkpoint of another model: Stu"):
        load_checkpoint(tmp_path, wider.model, its_optimizer)


def test_a_loss_that_is_not_finite_names_step_parts_and_pictures(tiny: RecipeConfig) -> None:
    training, optimizer = training_of(tiny)
    with torch.no_grad():
        training.model.Student.head.thresh.conv3.bias.fill_(float("nan"))
    with pytest.raises(LossNotFinite) as caught:
        fit(training, optimizer, RunState(), lambda report: None)
    assert caught.value.where == "step 0"
    assert caught.value.parts.keys() == {"total", "db.Student.shrink", "db.Student.threshold", "db.Student.binary"}
    assert len(caught.value.paths) == 2
    assert all(Path(path).exists() for path in caught.value.paths)


def test_too_many_pictures_that_fail_stop_the_run(tiny: RecipeConfig, rendered: Path, tmp_path: Path) -> None:
    lines = (rendered / "train_label.txt").read_text().splitlines()
    name, tab, boxes = lines[0].partition("\t")
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join([*lines[1:], f"gone/{name}{tab}{boxes}"]) + "\n")
    cfg = with_values(tiny, {"data.train": str(labels), "data.root": str(rendered), "data.epoch_size": 12}, "test")
    training, optimizer = training_of(cfg)
    with pytest.raises(DataError, match=r"1 of 12 pictures failed in epoch 1.*data\.max_failed=0\.01.*gone/"):
        fit(training, optimizer, RunState(), lambda report: None)
    training, optimizer = training_of(with_values(cfg, {"data.max_failed": 0.5, "optim.epochs": 1}, "test"))
    reports: list[EpochReport] = []
    fit(training, optimizer, RunState(), reports.append)
    assert reports[0].metrics["data.failed"] == 1


def test_new_parts_are_trained_alone_first(tiny: RecipeConfig) -> None:
    training, optimizer = training_of(with_values(tiny, {"run.new_parts_steps": 5}, "test"))
    new = frozenset(n for n, _ in training.model.named_parameters() if n.startswith("Student.head.thresh"))
    training = replace(training, new_parts=new)
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    at_start: dict[str, Any] = {}

    def first_epoch_is_done(report: EpochReport) -> None:
        raise StopIteration

    def watch(event: Any) -> None:
        if event.epoch == 0:
            at_start.update({name: value.clone() for name, value in training.model.state_dict().items()})

    with pytest.raises(StopIteration):
        fit(training, optimizer, RunState(), first_epoch_is_done, watch)
    moved = {name.rsplit(".", 1)[0] for name in before if not torch.equal(before[name], at_start[name])}
    assert moved
    assert all(name.startswith("Student.head.thresh") for name in moved)
    assert all(p.requires_grad for p in training.model.parameters())
    assert all(m.training for m in training.model.modules() if isinstance(m, BatchNorm))


def test_two_students_from_the_same_weights_are_told_apart(tiny: RecipeConfig, tmp_path: Path) -> None:
    from ocr_ray.model_card import ModelCard, save_detector

    student = build_model(tiny).model.Student
    weights = tmp_path / "student.safetensors"
    save_detector(weights, student, ModelCard(detector=tiny.student.detector))
    pair = replace(DMLConfig(), data=tiny.data, student=replace(tiny.student, weights=str(weights)))
    built = build_model(pair)
    assert "perturbed" in built.notes[0]
    students = built.model.students()
    assert torch.equal(students["Student"].head.binarize.conv1.weight, student.head.binarize.conv1.weight)
    assert not torch.equal(students["Student2"].head.binarize.conv1.weight, student.head.binarize.conv1.weight)
