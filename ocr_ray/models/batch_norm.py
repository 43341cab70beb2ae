"""Batch normalisation whose running variance is the reference's."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that stores the biased batch variance, as the reference does; torch stores the unbiased one.

    The two differ by a factor n / (n - 1), n = N * H * W: 4 % on a 5x5 map of one picture. What a training forward
    computes is the same. There is no `num_batches_tracked`: with a fixed momentum nothing reads it, and the state
    entries are then the reference's, one for one.

    Source: PaddlePaddle `nn.BatchNorm`, eps 1e-5; its momentum 0.9 weighs the old statistic, torch's 0.1 the new one.
    """

    num_batches_tracked: None
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, shift: float = 0.0) -> None:
        super().__init__(channels)
        self.register_buffer("num_batches_tracked", None)
        nn.init.constant_(self.bias, shift)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, H, W)` to the same shape. Raises: ValueError in training mode with a single value per channel."""
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        n = x.numel() // x.shape[1]
        unbias = n / max(n - 1, 1)
        # Blown up before the update and shrunk after it, the old statistic is unchanged and the new one is biased.
        # In a tensor of its own, since autograd keeps the one it was given and would object to its changing.
        variance = self.running_var * unbias
        y = F.batch_norm(x, self.running_mean, variance, self.weight, self.bias, True, self.momentum or 0.0, self.eps)
        torch.div(variance, unbias, out=self.running_var)
        return y

    def _load_from_state_dict(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        # Past `nn.BatchNorm2d`'s own, which adds `num_batches_tracked` to states that were saved without it.
        nn.Module._load_from_state_dict(self, *args, **kwargs)
