"""Pictures on disk, in and out."""

from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_ray.errors import DataError
from ocr_ray.files import whole_file

Image = NDArray[np.uint8]  # (H, W, 3), channels B, G, R


def read_image(path: Path) -> Image:
    """A picture as `(H, W, 3)` uint8 in B, G, R, turned as its EXIF data say; grey and 16 bit become 8 bit colour.

    Raises: DataError when the file is not there, empty, or no picture that OpenCV can decode.
    """
    try:
        data = path.read_bytes()
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror}") from e
    return decode_image(data, str(path))


def decode_image(data: bytes, source: str) -> Image:
    """As `read_image`, of the bytes of a picture's file; `source` names them in an error."""
    if not data:
        raise DataError(f"{source}: is empty, expected a picture")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as e:  # more pixels than OpenCV admits, for one
        raise DataError(f"{source}: cannot be decoded: {e.err}") from e
    if image is None:
        raise DataError(f"{source}: is no picture that OpenCV can decode")
    return cast(Image, image)


def write_image(path: Path, image: Image) -> None:
    """Writes `image` as its suffix says, .png, .jpg or .jpeg; whole or not at all.

    Raises: DataError for another suffix; UserError when the folder cannot be written to.
    """
    suffix = path.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise DataError(f"{path}: expected a name that ends in .png, .jpg or .jpeg")
    _, data = cv2.imencode(suffix, image, [] if suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 92])
    with whole_file(path) as aside:
        aside.write_bytes(data.tobytes())
