"""JPEGs read smaller than they are: their size from the header, their pixels at a half, a quarter or an eighth.

A JPEG decodes to a half in a quarter of the time (1.2 against 4.5 ms for photographs of 1280x720), and a picture that a
crop shrinks by more than two has to be smoothed before it is warped anyway.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image as PillowImage

from ocr_ray.data.images import Image

Reduction = Literal[1, 2, 4, 8]

_FLAGS = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
_EXIF_ORIENTATION = 274
_UPRIGHT = 1
_ON_THEIR_SIDE = (5, 6, 7, 8)
_HEAD, _START = 4096, b"\xff\xd8"
_TABLES, _EXIF, _WITHOUT_LENGTH = 0xC0, 0xE1, range(0xD0, 0xDA)  # markers: ITU-T T.81, table B.1
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, eq=False)
class ReducedImage:
    """`pixels` `(h, w, 3)` of a picture, of which one spans `pixel_width` x `pixel_height` pixels of the whole one."""

    pixels: Image
    pixel_width: float = 1.0
    pixel_height: float = 1.0


@dataclass(frozen=True)
class JpegHeader:
    """Width and height of a JPEG as `read_image` gives it, and whether it is `turned` or mirrored for that."""

    width: int
    height: int
    turned: bool


def read_jpeg_header(path: Path) -> JpegHeader | None:
    """A JPEG's size without decoding it; None where its header does not tell.

    None for other formats too: OpenCV decodes them whole in any case.
    """
    plain = _read_plain_header(path)
    if plain is not None:
        return plain
    try:
        with PillowImage.open(path, formats=("JPEG",)) as header:
            width, height = header.size
            orientation = header.getexif().get(_EXIF_ORIENTATION, _UPRIGHT)
    except Exception:
        # Pillow's readers raise whatever a broken file provokes in them. Nothing is lost: whoever gets None decodes
        # the file, and that error is the one to tell.
        return None
    if orientation in _ON_THEIR_SIDE:
        width, height = height, width
    return JpegHeader(width, height, orientation != _UPRIGHT)


def _read_plain_header(path: Path) -> JpegHeader | None:
    """Of a JPEG that nothing turns and whose first bytes say its size; Pillow needs ten times as long."""
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    if head[:2] != _START:
        return None
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if marker in _SIZES:
            height, width = int.from_bytes(head[at + 5 : at + 7]), int.from_bytes(head[at + 7 : at + 9])
            return JpegHeader(width, height, turned=False) if width and height else None
        if not _TABLES <= marker < 0xFF or marker in _WITHOUT_LENGTH or marker == _EXIF:
            return None
        at += 2 + int.from_bytes(head[at + 2 : at + 4])
    return None


def decode_file(path: Path, reduction: Reduction) -> Image | None:
    """A picture's pixels at 1/`reduction` of its size as OpenCV decodes them, `(h, w, 3)`; None where it cannot."""
    flag = cv2.IMREAD_COLOR if reduction == 1 else _FLAGS[reduction]
    try:
        pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flag)  # np.fromfile takes 0.1 ms more
    except (OSError, cv2.error):
        return None
    return None if pixels is None else np.asarray(pixels, np.uint8)


def read_reduced(
    path: Path,
    header: JpegHeader,
    reduction: Reduction,
    decode: Callable[[Path, Reduction], Image | None] = decode_file,
) -> ReducedImage | None:
    """A JPEG at 1/`reduction` of its size, smoothed.

    Args: decode gives what `decode_file` gives, perhaps from a store.
    Returns: None where its pixels do not come out as the header says; then `read_image` has the last word on the file.
    """
    width, height = header.width, header.height
    # Decoding to 1/8 rounds the size up: the last column and row span beyond the picture. Where the picture is turned
    # after that they come to lie somewhere else.
    whole = reduction == 1 or (header.turned and (width % reduction > 0 or height % reduction > 0))
    decoded: Reduction = 1 if whole else reduction
    image = decode(path, decoded)
    if image is None or image.shape[:2] != (-(-height // decoded), -(-width // decoded)):
        return None
    return shrink(image, reduction) if whole else ReducedImage(image, reduction, reduction)


def shrink(image: Image, reduction: Reduction) -> ReducedImage:
    """A decoded picture at 1/`reduction` of its size, each pixel the mean of those it covers."""
    if reduction == 1:
        return ReducedImage(image)
    height, width = image.shape[:2]
    size = (max(1, round(width / reduction)), max(1, round(height / reduction)))
    pixels = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return ReducedImage(pixels, width / size[0], height / size[1])
