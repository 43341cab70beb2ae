"""Whole training steps of the three recipes against the reference: losses, gradients, and the state they lead to."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ocr_ray.data.batch import Targets
from ocr_ray.engine.optim import OptimConfig, build_adam, learning_rate
from ocr_ray.losses.combined import CMLRecipeLoss, DMLRecipeLoss, RecipeLoss, StudentRecipeLoss, recipe_loss
from ocr_ray.models.detector import Detector, DetectorConfig, teacher_config
from ocr_ray.models.distillation import CMLTriple, DMLPair, Single

Fill = Callable[[nn.Module], None]
Name = Callable[[str], str]
MAPS = ("shrink_map", "shrink_mask", "threshold_map", "threshold_mask")
on_each_device = pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))],
)


@pytest.fixture(autouse=True)
def _float32_is_float32() -> Iterator[None]:
    """On a GPU convolutions would otherwise round float32 to TF32's 10 bits, as training does."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@dataclass(frozen=True)
class Steps:
    """What a run of a few steps gave: loss parts of each step, gradient norms of the first."""

    rates: list[float]
    parts: list[dict[str, float]]
    gradient_norms: dict[str, float]


def named_state(module: nn.Module, reference_name: Name) -> dict[str, torch.Tensor]:
    return {reference_name(name): tensor.cpu() for name, tensor in module.state_dict().items()}


def optim_config(meta: dict[str, Any], weight_decay: float) -> OptimConfig:
    optimizer = meta["optimizer"]
    return OptimConfig(
        lr=optimizer["lr"]["learning_rate"],
        epochs=meta["epochs"],
        warmup_epochs=optimizer["lr"]["warmup_epoch"],
        weight_decay=weight_decay,
        beta1=optimizer["beta1"],
        beta2=optimizer["beta2"],
    )


def run(
    model: Single | DMLPair | CMLTriple,
    vectors: dict[str, np.ndarray],
    loss: RecipeLoss,
    cfg: OptimConfig,
    steps_per_epoch: int,
    steps: int,
    dtype: torch.dtype,
    device: str,
) -> Steps:
    """`steps` updates on one batch, in training mode. Model and vectors are taken to `dtype` and `device` first."""
    model.to(device, dtype).train()
    images = torch.from_numpy(vectors["input"]).to(device, dtype)
    targets = Targets(**{k: torch.from_numpy(vectors[k]).to(device, dtype) for k in MAPS})
    optimizer = build_adam([p for p in model.parameters() if p.requires_grad], cfg)
    # The reference adds up its vector of losses, one per picture, for pairs and triples; ours is their mean.
    gradient_scale = 1 if isinstance(model, Single) else len(images)
    rates, all_parts, norms = [], [], dict[str, float]()
    for step in range(steps):
        parts = recipe_loss(model(images), targets, loss)
        all_parts.append({"total": parts.total.item(), **{k: v.item() for k, v in parts.values.items()}})
        optimizer.zero_grad()
        (parts.total * gradient_scale).backward()
        if step == 0:
            norms = {n: float(p.grad.double().norm()) for n, p in model.named_parameters() if p.grad is not None}
        rates.append(learning_rate(step, steps_per_epoch, cfg))
        for group in optimizer.param_groups:
            group["lr"] = rates[-1]
        optimizer.step()
    return Steps(rates, all_parts, norms)


def loss_name(theirs: str) -> str:
    """The reference's name of a logged loss to ours."""
    if theirs == "loss":
        return "total"
    if theirs.startswith("dml"):
        return "dml"
    if theirs.startswith("dila_dbloss_"):
        return "distill." + theirs.split("_")[2]
    front, key = theirs.removesuffix("_maps").split("loss_")
    student = next((s for s in front.split("_") if s.startswith("Student")), "Student")
    return f"db.{student}.{key}"


def assert_steps(ours: Steps, theirs: list[dict[str, Any]], tolerances: list[float]) -> None:
    assert len(ours.parts) == len(theirs) == len(tolerances)
    assert ours.rates == pytest.approx([step["lr"] for step in theirs], abs=1e-12)
    for found, expected, tolerance in zip(ours.parts, theirs, tolerances, strict=True):
        named = {loss_name(k): float(np.mean(v)) for k, v in expected["loss"].items() if not k.endswith("loss_cbn")}
        assert found.keys() == named.keys()
        for key, value in named.items():
            assert found[key] == pytest.approx(value, abs=tolerance, rel=tolerance), (expected["step"], key)


def assert_gradients(ours: dict[str, float], names: list[str], theirs: np.ndarray, worst: float) -> None:
    """Most norms of the first gradient agree to 1e-3, all to `worst`; those of mere noise are left out.

    The reference stored those of a float32 run. From ours in float64, whose losses equal the reference's in float64 to
    1e-9, they differ by up to 8e-3 where many layers of BatchNorm lie between a weight and the loss.
    """
    expected = {name: float(norm) for name, norm in zip(names, theirs, strict=True) if norm >= 0}
    assert ours.keys() == expected.keys()
    noise = 1e-6 * max(expected.values())
    errors = {n: abs(ours[n] - norm) / norm for n, norm in expected.items() if norm > noise}
    assert np.median(list(errors.values())) < 1e-3
    name = max(errors, key=lambda n: errors[n])
    assert errors[name] < worst, name


def assert_state(
    state: dict[str, torch.Tensor], names: list[str], vectors: dict[str, np.ndarray], slack: float
) -> None:
    """Norm and sum of each entry and some entries whole, to `slack` on the average number of an entry.

    Steps taken from slightly different gradients differ where these are small, since Adam divides by their size; so
    `slack` is a share of the way that Adam can have taken a number. Statistics may be off by 2 %.
    """
    assert list(state) == names
    for name, norm, total in zip(names, vectors["final_l2"], vectors["final_sum"], strict=True):
        ours, count = state[name].double(), state[name].numel()
        rel = 2e-2 if name.endswith(("._mean", "._variance")) else 0
        assert float(ours.norm()) == pytest.approx(norm, rel=rel, abs=slack * count**0.5), name
        # a sum of numbers of both signs is as exact as the numbers are, not as it is itself
        assert float(ours.sum()) == pytest.approx(total, abs=slack * count + rel * norm * count**0.5), name
    whole = {key.removeprefix("final/"): array for key, array in vectors.items() if key.startswith("final/")}
    assert whole
    for name, array in whole.items():
        of_statistics = 2e-2 * np.abs(array).mean() if name.endswith(("._mean", "._variance")) else 0
        assert np.abs(state[name].numpy() - array).mean() < slack + of_statistics, name


@on_each_device
@pytest.mark.parametrize(
    ("setting", "dtype"), [("l2_5e-5", torch.float32), ("l2_0.01", torch.float32), ("l2_0.01", torch.float64)], ids=str
)
def test_student_alone(
    golden: Path, fill_by_recipe: Fill, reference_name: Name, setting: str, dtype: torch.dtype, device: str
) -> None:
    meta = json.loads((golden / "g_student_train.json").read_text())
    stored = np.load(golden / "g_student_train.npz")
    vectors = {k.removeprefix(f"{setting}/"): stored[k] for k in stored.files if k.startswith(f"{setting}/")}
    student = Detector(DetectorConfig())
    fill_by_recipe(student)
    cfg = optim_config(meta, float(setting.removeprefix("l2_")))
    # float64 takes long on a CPU; the fourth loss is that of weights which have moved twice
    count = len(meta[setting]["steps"]) if dtype == torch.float32 else 4
    steps = run(Single(student), vectors, StudentRecipeLoss(), cfg, meta["step_each_epoch"], count, dtype, device)
    norms = {reference_name(n.removeprefix("Student.")): v for n, v in steps.gradient_norms.items()}

    assert_gradients(norms, meta["param_names"], vectors["grad_l2_step0"], worst=3e-2)
    if dtype == torch.float64:
        assert_steps(steps, meta[setting]["steps_float64"][:count], [1e-7] * count)
        return
    assert_steps(steps, meta[setting]["steps"], [1e-3] * 5 + [1e-2] * (count - 5))
    assert_state(named_state(student, reference_name), meta["state_keys"], vectors, slack=0.1 * sum(steps.rates))


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_cml(golden: Path, fill_by_recipe: Fill, reference_name: Name, dtype: torch.dtype, device: str) -> None:
    meta = json.loads((golden / "h_cml_step.json").read_text())
    vectors = dict(np.load(golden / "h_cml_step.npz"))
    students = Detector(DetectorConfig()), Detector(DetectorConfig())
    model = CMLTriple(*students, Detector(teacher_config()), batch_stats=True)
    fill_by_recipe(model)
    cfg = optim_config(meta, meta["optimizer"]["regularizer"]["factor"])
    steps = run(model, vectors, CMLRecipeLoss(), cfg, meta["step_each_epoch"], len(meta["steps"]), dtype, device)
    norms = {reference_name(n): v for n, v in steps.gradient_norms.items()}

    assert_gradients(norms, meta["param_names"], vectors["grad_l2_step0"], worst=1e-3)
    if dtype == torch.float64:
        assert_steps(steps, meta["steps_float64"], [1e-7] * 3)
        return
    assert_steps(steps, meta["steps"], [2e-4, 2e-4, 1e-3])
    # the drifted statistics of the frozen teacher are among these
    assert_state(named_state(model, reference_name), meta["state_keys"], vectors, slack=0.1 * sum(steps.rates))


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_dml(golden: Path, fill_by_recipe: Fill, reference_name: Name, dtype: torch.dtype, device: str) -> None:
    meta = json.loads((golden / "h_dml_step.json").read_text())
    vectors = dict(np.load(golden / "h_dml_step.npz"))
    model = DMLPair(Detector(teacher_config()), Detector(teacher_config()))
    fill_by_recipe(model)
    cfg = optim_config(meta, meta["optimizer"]["regularizer"]["factor"])
    count = len(meta["steps"]) if dtype == torch.float32 else 1
    steps = run(model, vectors, DMLRecipeLoss(), cfg, meta["step_each_epoch"], count, dtype, device)
    norms = {reference_name(n): v for n, v in steps.gradient_norms.items()}

    assert_gradients(norms, meta["param_names"], vectors["grad_l2_step0"], worst=3e-2)
    if dtype == torch.float64:
        assert_steps(steps, meta["steps_float64"][:count], [1e-7] * count)
        return
    assert_steps(steps, meta["steps"], [2e-4, 2e-4, 2e-2])
    # No weight decay here: a bias before a BatchNorm goes wherever the noise of its gradient sends it.
    assert_state(named_state(model, reference_name), meta["state_keys"], vectors, slack=0.5 * sum(steps.rates))
