from pathlib import Path

import cv2
import numpy as np
import pytest

from ocr_ray.data.images import read_image, write_image
from ocr_ray.errors import DataError

PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def test_png_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_image(tmp_path / "new" / "a.png", PICTURE)
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png"), PICTURE)


def test_a_grey_picture_of_16_bit_is_read_as_colour(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "grey.png"), np.full((5, 7), 256 * 200, np.uint16))
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.full((5, 7, 3), 200, np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"", "is empty"), (b"\x89PNG and no more", "no picture"), (b"text", "no picture")],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_image(path)
    assert str(path) in str(error.value)


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)


def test_an_unknown_suffix_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.png"):
        write_image(tmp_path / "a.gif", PICTURE)
    assert not list(tmp_path.iterdir())
