"""Every number under `loss` and `optim` does something: the lists come from the configs themselves."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from ocr_ray.config import CMLConfig, DMLConfig, RecipeConfig, StudentConfig
from ocr_ray.data.batch import Targets
from ocr_ray.engine.loop import update
from ocr_ray.engine.optim import OptimConfig, build_adam, learning_rate
from ocr_ray.errors import ConfigError
from ocr_ray.losses.combined import recipe_loss
from ocr_ray.models.db_head import Maps
from ocr_ray.models.detector import Detector, DetectorConfig
from ocr_ray.models.distillation import Outputs, Single
from ocr_ray.models.mobilenet_v3 import MobileNetV3Config
from ocr_ray.models.rse_fpn import RSEFPNConfig
from ocr_ray.typed import flatten, with_values

RECIPES: dict[str, RecipeConfig] = {"student": StudentConfig(), "dml": DMLConfig(), "cml": CMLConfig()}
# Under Dice hard negatives are mined among equals: the reference's ratio is dead there, and so is ours (see `dice.py`).
DEAD_UNDER_DICE = ("loss.db.ohem_ratio", "loss.distill.ohem_ratio")
SHAPE = (2, 24, 32)


def moved(value: Any) -> Any:
    """Another value that a setting may have."""
    match value:
        case bool():
            return not value
        case "dice":
            return "bce"
        case int():
            return value + 1
        case float():
            return 0.6 * value + 0.01
    raise AssertionError(f"no other value for {value!r}: add one here")


def settings() -> Iterator[tuple[str, str]]:
    for recipe, cfg in RECIPES.items():
        for key in flatten(cfg):
            if key.startswith("loss."):
                yield recipe, key


def gradient(cfg: RecipeConfig) -> Tensor:
    """Of a batch with text in a quarter of the pixels, and of what the students say to it."""
    generator = torch.Generator().manual_seed(0)

    def drawn() -> Tensor:
        return torch.rand(SHAPE, generator=generator, dtype=torch.float64)

    labels = Targets((drawn() < 0.25).double(), (drawn() < 0.9).double(), 0.3 + 0.4 * drawn(), (drawn() < 0.5).double())
    students = [torch.stack([drawn(), drawn(), drawn()]).requires_grad_() for _ in range(2)]
    names = ("Student",) if isinstance(cfg, StudentConfig) else ("Student", "Student2")
    outputs = Outputs({n: Maps(*x) for n, x in zip(names, students, strict=False)}, 0.32 * drawn())
    recipe_loss(outputs, labels, cfg.loss).total.backward()
    return torch.stack([x.grad for x in students if x.grad is not None])


@pytest.mark.parametrize(("recipe", "key"), [s for s in settings() if s[1] not in DEAD_UNDER_DICE])
def test_every_loss_setting_changes_the_gradient(recipe: str, key: str) -> None:
    cfg = RECIPES[recipe]
    other = with_values(cfg, {key: moved(flatten(cfg)[key])}, "test")
    assert not torch.equal(gradient(cfg), gradient(other))


@pytest.mark.parametrize(("recipe", "key"), [s for s in settings() if s[1] in DEAD_UNDER_DICE])
def test_ohem_ratio_lives_under_bce_and_is_dead_under_dice(recipe: str, key: str) -> None:
    dice = RECIPES[recipe]
    bce = with_values(dice, {key.replace("ohem_ratio", "main"): "bce"}, "test")
    other = moved(flatten(dice)[key])
    assert not torch.equal(gradient(bce), gradient(with_values(bce, {key: other}, "test")))
    difference = gradient(dice) - gradient(with_values(dice, {key: other}, "test"))
    assert difference.norm() < 1e-7 * gradient(dice).norm()
    # without mining it is dead as well
    plain = with_values(bce, {key.replace("ohem_ratio", "balance"): False}, "test")
    assert torch.equal(gradient(plain), gradient(with_values(plain, {key: other}, "test")))


@pytest.mark.parametrize(("recipe", "key"), list(settings()))
def test_numbers_of_no_use_are_refused_by_name(recipe: str, key: str) -> None:
    cfg = RECIPES[recipe]
    if not isinstance(flatten(cfg)[key], float):
        return
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=key):
            with_values(cfg, {key: bad}, "test")


# A bound that is met at every step, and a schedule that is through its warm-up soon.
OPTIM = OptimConfig(epochs=5, warmup_epochs=1.0, clip_norm=1.0)


def weights_after_steps(cfg: OptimConfig) -> Tensor:
    torch.manual_seed(0)
    # in float64, so that the least effect is seen
    student = Detector(DetectorConfig(MobileNetV3Config(scale=0.1), RSEFPNConfig(out_channels=16))).double()
    model = Single(student).train()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    targets = Targets(*(torch.rand(2, 64, 64, dtype=torch.float64).round() for _ in range(4)))
    optimizer = build_adam(model.parameters(), cfg)
    for step in range(5):
        optimizer.param_groups[0]["lr"] = learning_rate(step, 2, cfg)
        update(model, optimizer, images, targets, StudentConfig().loss, clip_norm=cfg.clip_norm)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture(scope="module")
def reference_weights() -> Tensor:
    return weights_after_steps(OPTIM)


@pytest.mark.parametrize("key", list(flatten(OPTIM)))
def test_every_optimiser_setting_changes_the_update(reference_weights: Tensor, key: str) -> None:
    other = with_values(OPTIM, {key: moved(flatten(OPTIM)[key])}, "test")
    assert not torch.equal(reference_weights, weights_after_steps(other))
    assert torch.equal(reference_weights, weights_after_steps(OPTIM))  # and nothing else does
