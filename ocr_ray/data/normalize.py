"""Pixels to what the nets take."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ocr_ray.errors import ConfigError


@dataclass(frozen=True)
class NormalizeConfig:
    """Mean and deviation of pixels in [0, 1], one per channel in the order B, G, R.

    The numbers are ImageNet's of R, G, B; the reference applies them to B, G, R and the released weights expect that.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if min(self.std) <= 0:
            raise ConfigError(f"normalize.std: expected three numbers above 0, found {list(self.std)}")


def renormalize(images: Tensor, given: NormalizeConfig, wanted: NormalizeConfig) -> Tensor:
    """What `normalize` would have made by `wanted` of pictures that it made by `given`, `(N, 3, H, W)` float32.

    Exact: pixels are whole numbers, and come back as such.
    """
    if given == wanted:
        return images
    std = torch.tensor(given.std, dtype=torch.float32, device=images.device).view(1, 3, 1, 1)
    mean = torch.tensor(given.mean, dtype=torch.float32, device=images.device).view(1, 3, 1, 1)
    return normalize(((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8), wanted)


def normalize(images: Tensor, cfg: NormalizeConfig) -> Tensor:
    """(x / 255 - mean) / std, on the device of `images`.

    Args: images uint8 `(N, 3, H, W)`, channels B, G, R as OpenCV reads them.
    Returns: float32 of the same shape. Source: PaddleOCR, `NormalizeImage`.
    Raises: ValueError when `images` is not uint8 `(N, 3, H, W)`.
    """
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
        raise ValueError(f"normalize: expected uint8 (N, 3, H, W), found {images.dtype} {tuple(images.shape)}")
    scale, shift = _scale_and_shift(cfg, images.device)
    return torch.addcmul(shift, images.float(), scale)


@lru_cache(maxsize=32)
def _scale_and_shift(cfg: NormalizeConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """`(1, 3, 1, 1)` each, so that a pixel takes a multiplication and an addition; rounded once, in double precision.

    Kept, since a device waits for each number that is brought to it.
    """
    scale = torch.tensor([1 / (255 * s) for s in cfg.std], dtype=torch.float32)
    shift = torch.tensor([-m / s for m, s in zip(cfg.mean, cfg.std, strict=True)], dtype=torch.float32)
    return scale.view(1, 3, 1, 1).to(device), shift.view(1, 3, 1, 1).to(device)
