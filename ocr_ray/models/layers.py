"""The two blocks that more than one part of a detector is made of."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ocr_ray.models.batch_norm import BatchNorm
from ocr_ray.models.init import conv2d

Activation = Literal["relu", "hardswish", "none"]


class ConvBN(nn.Module):
    """Convolution without bias, batch normalisation, activation: `(N, in, H, W)` to `(N, out, H/stride, W/stride)`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: Activation = "none",
    ) -> None:
        super().__init__()
        self.conv = conv2d(in_channels, out_channels, kernel, stride, groups)
        self.bn = BatchNorm(out_channels)
        self.activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.bn(self.conv(x))
        match self.activation:
            case "relu":
                return F.relu(x, inplace=True)  # batch normalisation keeps its input for backward, not its output
            case "hardswish":
                return F.hardswish(x)
            case "none":
                return x


class SqueezeExcite(nn.Module):
    """Per channel a gate in [0, 1], from the channel means: `(N, C, H, W)` to gates `(N, C, 1, 1)`.

    Source: Hu et al. 2018, arXiv 1709.01507, with a hard sigmoid; reference name `SEModule` (which also multiplies).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv2d(channels, channels // 4, 1, bias=True)
        self.conv2 = conv2d(channels // 4, channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        gate = self.conv2(F.relu(self.conv1(F.adaptive_avg_pool2d(x, 1)), inplace=True))
        return (0.2 * gate + 0.5).clamp(0, 1)  # not F.hardsigmoid: its slope is 1/6, the released weights have 0.2
