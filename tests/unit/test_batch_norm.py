import copy

import pytest
import torch
from torch import nn

from ocr_ray.models.batch_norm import BatchNorm


def test_running_statistics_are_the_references() -> None:
    torch.manual_seed(0)
    ours, mean, variance = BatchNorm(4).double(), torch.zeros(4).double(), torch.ones(4).double()
    for _ in range(3):
        x = 3 * torch.randn(2, 4, 3, 5).double() + 1
        ours(x)
        mean = 0.9 * mean + 0.1 * x.mean((0, 2, 3))
        variance = 0.9 * variance + 0.1 * x.var((0, 2, 3), correction=0)
        torch.testing.assert_close(ours.running_mean, mean)
        torch.testing.assert_close(ours.running_var, variance, rtol=1e-12, atol=0)


def test_float32_does_not_drift_in_a_long_run() -> None:
    """The statistic is scaled up and down at each step: the rounding of that must not add up."""
    torch.manual_seed(0)
    ours, x = BatchNorm(3), torch.randn(2, 3, 2, 2)
    for _ in range(2000):
        ours(x)
    torch.testing.assert_close(ours.running_var, x.var((0, 2, 3), correction=0), rtol=5e-6, atol=0)


def test_same_forward_and_gradient_in_training() -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm(4), nn.BatchNorm2d(4)
    x = torch.randn(2, 4, 3, 5, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    a, b = ours(x), theirs(y)
    assert torch.equal(a, b)
    (a.square() * a).sum().backward()
    (b.square() * b).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert torch.equal(x.grad, y.grad)
    assert ours.weight.grad is not None
    assert theirs.weight.grad is not None
    assert torch.equal(ours.weight.grad, theirs.weight.grad)


def test_two_forwards_before_one_backward() -> None:
    """The second one moves the statistics, which autograd keeps from the first."""
    ours = BatchNorm(2)
    x = torch.randn(2, 2, 4, 4, requires_grad=True)
    (ours(x).square() * x).sum().add(ours(2 * x).sum()).backward()
    assert x.grad is not None


def test_eval_moves_nothing() -> None:
    ours = BatchNorm(2)
    before = copy.deepcopy(ours.state_dict())
    x = torch.randn(2, 2, 4, 4)
    torch.testing.assert_close(ours.eval()(x), x / (1 + 1e-5) ** 0.5)
    assert all(torch.equal(before[k], v) for k, v in ours.state_dict().items())


def test_state_has_the_references_four_entries() -> None:
    ours = BatchNorm(2, shift=1e-4)
    assert list(ours.state_dict()) == ["weight", "bias", "running_mean", "running_var"]
    assert ours.bias.tolist() == pytest.approx([1e-4, 1e-4])
    other = BatchNorm(2)
    other.load_state_dict({k: v + 1 for k, v in ours.state_dict().items()})  # a plain dict, as from a file
    assert torch.equal(other.running_var, ours.running_var + 1)
    assert list(copy.deepcopy(other).state_dict()) == list(ours.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({"weight": torch.ones(2)})


def test_bf16_input_keeps_float32_statistics() -> None:
    ours = BatchNorm(2)
    x = torch.randn(2, 2, 4, 4).bfloat16().contiguous(memory_format=torch.channels_last)
    y = ours(x)
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert ours.running_var.dtype == torch.float32
    torch.testing.assert_close(ours.running_var, 0.9 + 0.1 * x.float().var((0, 2, 3), correction=0), rtol=1e-5, atol=0)


def test_one_value_per_channel_cannot_be_normalised() -> None:
    with pytest.raises(ValueError, match="more than 1 value"):
        BatchNorm(2)(torch.randn(1, 2, 1, 1))
