from itertools import pairwise

import pytest
import torch
from torch import nn

from ocr_ray.engine.optim import OptimConfig, build_adam, learning_rate
from ocr_ray.errors import ConfigError


def test_adam_with_coupled_decay_by_hand() -> None:
    """Three updates of one weight with changing gradients, by the formulas of the paper."""
    cfg = OptimConfig(lr=0.1, weight_decay=0.01, beta1=0.8, beta2=0.95, eps=1e-3)
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    adam = build_adam([weight], cfg)
    w, m, v = 2.0, 0.0, 0.0
    for t, slope in enumerate((0.3, -1.0, 5.0), start=1):
        adam.zero_grad()
        (slope * weight).sum().backward()
        adam.step()
        g = slope + 0.01 * w
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
        w -= 0.1 * (m / (1 - 0.8**t)) / ((v / (1 - 0.95**t)) ** 0.5 + 1e-3)
        assert weight.item() == pytest.approx(w, rel=1e-12)


def test_the_first_update_of_a_warm_up_moves_nothing() -> None:
    cfg = OptimConfig()
    weight = nn.Parameter(torch.ones(3))
    adam = build_adam([weight], cfg)
    adam.param_groups[0]["lr"] = learning_rate(0, 10, cfg)
    weight.sum().backward()
    adam.step()
    assert torch.equal(weight, torch.ones(3))


def test_rate_rises_on_a_line_and_falls_without_a_jump() -> None:
    cfg = OptimConfig(lr=0.4, epochs=10, warmup_epochs=2)
    rates = [learning_rate(t, 50, cfg) for t in range(500)]
    assert rates[:101] == pytest.approx([0.004 * t for t in range(101)])
    assert all(a > b for a, b in pairwise(rates[100:]))
    assert max(abs(a - b) for a, b in pairwise(rates)) <= 0.0040001
    assert 0 < rates[-1] < 0.05


def test_warm_up_of_part_of_an_epoch_and_of_none() -> None:
    half = OptimConfig(lr=1.0, warmup_epochs=0.5)
    assert [learning_rate(t, 8, half) for t in range(5)] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert learning_rate(0, 8, OptimConfig(lr=1.0, warmup_epochs=0)) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 0),
        ("lr", -1.0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("warmup_epochs", -0.1),
        ("weight_decay", -1e-5),
        ("beta1", 1.0),
        ("beta2", -0.1),
        ("eps", 0.0),
        ("clip_norm", 0.0),
    ],
)
def test_numbers_that_cannot_work_are_refused(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"optim.{key}"):
        OptimConfig(**{key: value})
