from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ocr_ray.data import reduced
from ocr_ray.data.images import read_image
from ocr_ray.data.reduced import JpegHeader, Reduction, read_jpeg_header, read_reduced, shrink

REDUCTIONS: tuple[Reduction, ...] = (1, 2, 4, 8)


def smooth(width: int, height: int) -> NDArray[np.uint8]:
    """A picture whose colours rise evenly to the right and downwards: a value tells where its pixel's middle lies."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return (np.stack([x, y, (x + y) / 2], axis=-1) * 255).astype(np.uint8)


def written(path: Path, image: NDArray[np.uint8], orientation: int = 1) -> Path:
    """A JPEG with an EXIF orientation."""
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    entry = b"\x01\x12\0\x03\0\0\0\x01" + orientation.to_bytes(2, "big") + b"\0\0"
    segment = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + b"\0\0\0\0"
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:])
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("size", [(205, 131), (208, 128)])
def test_a_jpeg_is_read_smaller_as_it_is_shown(
    tmp_path: Path, size: tuple[int, int], reduction: Reduction, orientation: int
) -> None:
    path = written(tmp_path / "a.jpg", smooth(*size), orientation)
    whole = read_image(path)
    header = read_jpeg_header(path)
    assert header == JpegHeader(whole.shape[1], whole.shape[0], orientation != 1)
    smaller = read_reduced(path, header, reduction)
    assert smaller is not None
    rows, columns = np.indices(smaller.pixels.shape[:2])
    # Where each pixel's middle lies in the whole picture; the last ones may reach beyond it.
    rows = np.minimum((rows + 0.5) * smaller.pixel_height, whole.shape[0] - 1).astype(int)
    columns = np.minimum((columns + 0.5) * smaller.pixel_width, whole.shape[1] - 1).astype(int)
    difference = np.abs(smaller.pixels.astype(int) - whole[rows, columns])
    assert np.median(difference) <= 2


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("size", [(205, 131), (1, 1), (3000, 7)])
def test_a_plain_header_is_read_without_pillow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], progressive: int
) -> None:
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), smooth(*size), [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])
    monkeypatch.setattr(reduced.PillowImage, "open", None)
    assert read_jpeg_header(path) == JpegHeader(*size, False)
    large = b"\xff\xfe\xff\xff" + bytes(0xFFFD)  # a comment of 64 KiB comes before the size
    path.write_bytes(path.read_bytes()[:2] + large + path.read_bytes()[2:])
    monkeypatch.undo()
    assert read_jpeg_header(path) == JpegHeader(*size, False)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_decoded_picture_is_shrunk_by_means(reduction: Reduction) -> None:
    image = smooth(205, 131)
    smaller = shrink(image, reduction)
    height, width = smaller.pixels.shape[:2]
    assert (width, height) == (round(205 / reduction), round(131 / reduction))
    assert smaller.pixel_width * width == pytest.approx(205)
    assert smaller.pixel_height * height == pytest.approx(131)
    np.testing.assert_allclose(smaller.pixels.mean(axis=(0, 1)), image.mean(axis=(0, 1)), atol=1)


def test_a_picture_smaller_than_the_reduction_keeps_a_pixel() -> None:
    assert shrink(smooth(3, 1), 8).pixels.shape == (1, 1, 3)


def test_other_formats_and_broken_files_are_left_to_the_whole_reading(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), smooth(64, 48))
    (tmp_path / "cut.jpg").write_bytes(written(tmp_path / "b.jpg", smooth(64, 48)).read_bytes()[:60])
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name in ("a.png", "cut.jpg", "empty.jpg", "none.jpg"):
        assert read_jpeg_header(tmp_path / name) is None
    for name in ("cut.jpg", "empty.jpg", "none.jpg"):
        assert read_reduced(tmp_path / name, JpegHeader(64, 48, False), 2) is None


def test_a_header_that_lies_is_found_out(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jpg", smooth(64, 48))
    assert read_reduced(path, JpegHeader(64, 47, False), 1) is None
    assert read_reduced(path, JpegHeader(64, 50, False), 2) is None
