"""The size at which a picture enters the net in evaluation, and the resize to it."""

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_ray.errors import ConfigError, DataError

LimitType = Literal["min", "max", "resize_long", "resize_long_128"]
STRIDE = 32  # the nets halve five times
MAX_ENLARGED_PIXELS = 2**26  # a line of 3000x1 pixels would otherwise become 4.9 GB


@dataclass(frozen=True)
class ResizeConfig:
    """Which side is brought to which length, in pixels. The default is the reference's in evaluation.

    Its deployment tools use `limit_side_len=960, limit_type="max"`, hence other boxes from the same weights.
    """

    limit_side_len: int = 736
    limit_type: LimitType = "min"
    """`min`: a shortest side below the limit is enlarged to it. `max`: a longest side above the limit is reduced to
    it. `resize_long`: the longest side becomes the limit. These three round each side to the nearest multiple of 32.
    `resize_long_128`: as `resize_long`, with each side rounded up to a multiple of 128 (the reference's own key
    `resize_long`)."""
    image_shape: tuple[int, int] | None = None
    """(height, width): one fixed size for all pictures; the limits are then not read."""
    keep_ratio: bool = False
    """With image_shape: the width follows from the height, rounded up to a multiple of 32."""

    def __post_init__(self) -> None:
        if self.limit_side_len < 1:
            raise ConfigError(f"resize.limit_side_len: expected at least 1, found {self.limit_side_len}")
        if self.keep_ratio and self.image_shape is None:
            raise ConfigError("resize.keep_ratio: has no effect without resize.image_shape, expected false")
        if self.image_shape is not None:
            height, width = self.image_shape
            if height < 1 or width < 1 or height % STRIDE or (width % STRIDE and not self.keep_ratio):
                raise ConfigError(f"resize.image_shape: expected multiples of {STRIDE}, found [{height}, {width}]")

    def __str__(self) -> str:
        """The rule in words, e.g. `shortest side at least 736`."""
        if self.image_shape is not None:
            height, width = self.image_shape
            return f"height {height}, width in proportion" if self.keep_ratio else f"{width}x{height}"
        match self.limit_type:
            case "min":
                return f"shortest side at least {self.limit_side_len}"
            case "max":
                return f"longest side at most {self.limit_side_len}"
            case "resize_long":
                return f"longest side {self.limit_side_len}"
            case "resize_long_128":
                return f"longest side {self.limit_side_len}, up to multiples of 128"


def resized_shape(height: int, width: int, cfg: ResizeConfig) -> tuple[int, int]:
    """(height, width) at which a picture of `height` by `width` pixels enters the net.

    Source: PaddleOCR, `DetResizeForTest`. It pads a very small picture first: see `pad_small`.
    """
    if cfg.image_shape is not None:
        fixed_height, fixed_width = cfg.image_shape
        if cfg.keep_ratio:
            return fixed_height, math.ceil(width * fixed_height / height / STRIDE) * STRIDE
        return fixed_height, fixed_width
    shortest, longest = min(height, width), max(height, width)
    match cfg.limit_type:
        case "min":
            ratio = cfg.limit_side_len / shortest if shortest < cfg.limit_side_len else 1.0
        case "max":
            ratio = cfg.limit_side_len / longest if longest > cfg.limit_side_len else 1.0
        case "resize_long":
            ratio = cfg.limit_side_len / longest
        case "resize_long_128":
            ratio = cfg.limit_side_len / longest
            return _up_to_128(height * ratio), _up_to_128(width * ratio)
    return _nearest_multiple(height * ratio), _nearest_multiple(width * ratio)


def pad_small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture whose sides add up to less than 64 gets zeros at the right and below, up to 32 a side."""
    height, width = image.shape[:2]
    if height + width >= 2 * STRIDE:
        return image
    padded = np.zeros((max(STRIDE, height), max(STRIDE, width), image.shape[2]), np.uint8)
    padded[:height, :width] = image
    return padded


def resize_for_test(
    image: NDArray[np.uint8], cfg: ResizeConfig, source: str = "picture"
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """`image` (H, W, 3) uint8 at the size that `cfg` asks for, bilinear; `source` names it in an error.

    Returns: the resized picture, and `[H, W, ratio_h, ratio_w]` with the picture's own size in pixels (before any
        padding) and the factors from there, or from the padded size, to the new one.
    Raises: DataError when the picture would have to be enlarged to more than 2^26 pixels.
    Source: PaddleOCR, `DetResizeForTest`.
    """
    height, width = image.shape[:2]
    padded = pad_small(image)
    from_height, from_width = padded.shape[:2]
    to_height, to_width = resized_shape(from_height, from_width, cfg)
    if to_height * to_width > max(MAX_ENLARGED_PIXELS, from_height * from_width):
        raise DataError(f"{source}: {width}x{height} pixels would be enlarged to {to_width}x{to_height} ({cfg})")
    resized = cv2.resize(padded, (to_width, to_height))
    shape = np.array([height, width, to_height / from_height, to_width / from_width])
    return resized.astype(np.uint8, copy=False), shape


def _nearest_multiple(side: float) -> int:
    # Python's round: a half goes to the even neighbour, as in the reference.
    return max(round(int(side) / STRIDE) * STRIDE, STRIDE)


def _up_to_128(side: float) -> int:
    return (int(side) + 127) // 128 * 128
