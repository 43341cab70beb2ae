"""Convolutions that start as the reference's do. Every draw comes from torch's global generator alone.

Source: the initialisers of PaddlePaddle, read in its code and checked against drawn weights of the reference.
"""

from math import sqrt

import torch
from torch import nn


def conv2d(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """An odd-kernel convolution that keeps `ceil(size / stride)`: weights Normal(0, sqrt(2 / (kernel² in_channels))).

    `in_channels` counts whole even where `groups` divides it, so a depth-wise layer starts sqrt(in_channels) smaller
    than by He's rule. Bias 0. The reference's default.
    """
    conv = _conv2d(in_channels, out_channels, kernel, stride, groups, bias)
    nn.init.normal_(conv.weight, std=sqrt(2 / (kernel * kernel * in_channels)))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def kaiming_conv2d(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """As `conv2d`, without bias and with weights uniform in ±sqrt(6 / (kernel² in_channels)), as in the necks."""
    conv = _conv2d(in_channels, out_channels, kernel, stride, 1, False)
    kaiming_uniform_(conv.weight)
    return conv


def kaiming_uniform_(weight: torch.Tensor) -> None:
    """Uniform in ±sqrt(6 / fan_in), fan_in = shape[1] · kernel area: for a transposed convolution its outputs."""
    bound = sqrt(6 / weight[0].numel())
    nn.init.uniform_(weight, -bound, bound)


def _conv2d(in_channels: int, out_channels: int, kernel: int, stride: int, groups: int, bias: bool) -> nn.Conv2d:
    # skip_init: torch's own draw for a weight that is overwritten anyway would cost as much as ours.
    conv = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Conv2d,
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        bias=bias,
        device=torch.get_default_device(),  # it would take the CPU, under `torch.device("meta")` as well
    )
    assert isinstance(conv, nn.Conv2d)
    return conv
