"""Every named loss of the reference and its gradient; BCE, which the vectors do not hold, against its formula."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ocr_ray.data.batch import Targets
from ocr_ray.losses.bce import ohem_bce_loss
from ocr_ray.losses.combined import CMLRecipeLoss, DMLRecipeLoss, RecipeLoss, StudentRecipeLoss, recipe_loss
from ocr_ray.losses.db import DBLossConfig, db_loss
from ocr_ray.losses.dila import DistillLossConfig, distill_loss, teacher_target
from ocr_ray.losses.dml import DMLLossConfig, dml_loss
from ocr_ray.models.db_head import Maps
from ocr_ray.models.distillation import Outputs

MAPS = ("shrink_map", "shrink_mask", "threshold_map", "threshold_mask")
CASES = ("b2", "b1", "b2_dense", "b2_onempty")
RECIPES: dict[str, RecipeLoss] = {"db": StudentRecipeLoss(), "dml": DMLRecipeLoss(), "cml": CMLRecipeLoss()}
REFERENCE_DB_PREFIX = {"db": "", "dml": "DBLoss_{}_", "cml": "db_{}_"}
PARTS = {"shrink": "loss_shrink_maps", "threshold": "loss_threshold_maps", "binary": "loss_binary_maps"}


def reference_name(recipe: str, part: str) -> str:
    """`db.Student2.shrink` to what the reference calls it in this recipe."""
    match part.split("."):
        case ["dml"]:
            return "dml_thrink_maps_0"
        case ["distill", student]:
            return f"dila_dbloss_{student}_Teacher"
        case [_, student, key]:
            return REFERENCE_DB_PREFIX[recipe].format(student) + PARTS[key]
    raise AssertionError(part)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients(golden: Path, case: str, recipe: str) -> None:
    vectors = np.load(golden / "b_losses.npz")
    label = {k: torch.from_numpy(vectors[f"{case}/label/{k}"]) for k in MAPS}
    students = ("Student",) if recipe == "db" else ("Student", "Student2")
    predictions = {s: torch.from_numpy(vectors[f"{case}/pred/{s}"]).requires_grad_() for s in students}
    outputs = Outputs({s: Maps(*p.unbind(1)) for s, p in predictions.items()})
    if recipe == "cml":
        outputs = Outputs(outputs.students, torch.from_numpy(vectors[f"{case}/pred/Teacher"])[:, 0])

    parts = recipe_loss(outputs, Targets(**label), RECIPES[recipe])

    prefix = f"{case}/{recipe}/"
    theirs = {k.removeprefix(prefix) for k in vectors.files if k.startswith(prefix) and "/grad/" not in k}
    theirs = {k for k in theirs if not k.endswith("loss_cbn")} - {"loss"}  # cbn is 0, loss is the sum
    assert {reference_name(recipe, part) for part in parts.values} == theirs
    for part, value in parts.values.items():
        expected = float(vectors[prefix + reference_name(recipe, part)].mean())
        assert value.item() == pytest.approx(expected, rel=2e-5), part
    total = vectors[prefix + "loss"]
    assert parts.total.item() == pytest.approx(float(total.mean()), rel=2e-5)

    # The reference adds its vector's entries up, ours is their mean. Its shrink gradients carry a rounding error of
    # up to 2e-4, which a float64 run has not; with that error put in, part by part, all must agree to 1e-5.
    target = None if outputs.teacher_shrink is None else teacher_target(outputs.teacher_shrink, 0.3).float()
    gradients = {s: torch.zeros_like(p) for s, p in predictions.items()}
    for part, value in parts.values.items():
        found = torch.autograd.grad(value * total.size, [*predictions.values()], retain_graph=True, allow_unused=True)
        for student, gradient in zip(predictions, found, strict=True):
            if gradient is None:
                continue
            if part.endswith(".shrink"):
                gradient[:, 0] *= summation_error(label["shrink_map"], label["shrink_mask"], 5 * total.size)
            elif part.startswith("distill."):
                assert target is not None
                gradient[:, 0] *= summation_error(target, label["shrink_mask"], 5 * total.size)
            gradients[student] += gradient
    (parts.total * total.size).backward()
    for student, prediction in predictions.items():
        expected_gradient = torch.from_numpy(vectors[f"{prefix}grad/{student}"])
        torch.testing.assert_close(gradients[student], expected_gradient, rtol=1e-5, atol=1e-8)
        assert prediction.grad is not None
        assert (prediction.grad - expected_gradient).norm() <= 5e-4 * expected_gradient.norm()


def summation_error(target: Tensor, mask: Tensor, scale: float) -> float:
    """What the reference makes of a balanced Dice loss's gradient: a factor that would be 1 in exact arithmetic.

    It gives each counted pixel the weight scale / (P + N + 1e-6), and adds these P + N equal numbers up again one by
    one in float32, positives and negatives apart, where each addition is rounded the same way as the one before.
    """
    positives = int((target * mask).sum())
    negatives = int(min(float(((1 - target) * mask).sum()), 3 * positives))
    if positives == 0:
        return 1.0
    weight = np.float32(scale) / np.float32(positives + negatives + 1e-6)
    sums = (float(np.add.accumulate(np.full(n, weight, np.float32))[-1]) for n in (positives, negatives) if n)
    return sum(sums) / scale


def f(k: int) -> Tensor:
    n = torch.arange(32, dtype=torch.float64)
    return (0.98 * ((n * k) % 17) / 17 + 0.01).view(2, 4, 4)


def worked_example() -> tuple[Maps, Targets]:
    n = torch.arange(32, dtype=torch.float64).view(2, 4, 4)
    shrink_mask = torch.ones(2, 4, 4, dtype=torch.float64)
    shrink_mask[0, 0, 0] = shrink_mask[1, 3, 3] = 0
    targets = Targets(
        shrink_map=((13 * n) % 5 < 2).double(),
        shrink_mask=shrink_mask,
        threshold_map=0.3 + 0.4 * ((3 * n) % 7) / 6,
        threshold_mask=((2 * n) % 3 > 0).double(),
    )
    return Maps(f(5), f(7), torch.sigmoid(50 * (f(5) - f(7)))), targets


def test_worked_example() -> None:
    """A small case whose figures were worked out in float64 apart from any of this code."""
    maps, targets = worked_example()
    loss = db_loss(maps, targets, DBLossConfig())
    assert [loss.shrink.item(), loss.threshold.item(), loss.binary.item(), loss.total.item()] == pytest.approx(
        [2.586358, 2.859290, 0.362569, 5.808217], abs=1e-6
    )
    assert dml_loss(f(5), f(3), DMLLossConfig()).item() == pytest.approx(0.181049, abs=1e-6)
    target = teacher_target(f(11), 0.3)
    assert target.sum() == 31
    assert distill_loss(maps, target, targets.shrink_mask, DistillLossConfig()).item() == pytest.approx(
        2.049223, abs=1e-6
    )


@pytest.mark.parametrize("ohem_ratio", [0.0, 1.0, 3.0, 100.0])
@pytest.mark.parametrize("case", CASES)
def test_ohem_takes_the_hardest_negatives(golden: Path, case: str, ohem_ratio: float) -> None:
    """The same sum, written with NumPy as the formula says it."""
    vectors = np.load(golden / "b_losses.npz")
    p = vectors[f"{case}/pred/Student"][:, 0].astype(np.float64)
    t, m = (vectors[f"{case}/label/{k}"].astype(np.float64) for k in ("shrink_map", "shrink_mask"))
    entropy = -(t * np.log(np.maximum(p, 1e-40)) + (1 - t) * np.log(np.maximum(1 - p, 1e-40)))
    positives = int((t * m).sum())
    negatives = int(min(((1 - t) * m).sum(), ohem_ratio * positives))
    hardest = np.sort((entropy * (1 - t) * m).ravel())[::-1][:negatives]
    expected = ((entropy * t * m).sum() + hardest.sum()) / (positives + negatives + 1e-6)
    maps = (torch.from_numpy(a) for a in (p, t, m))
    assert ohem_bce_loss(*maps, ohem_ratio, 1e-6).item() == pytest.approx(expected, rel=1e-6)
