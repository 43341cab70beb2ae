"""An exported file by its metadata alone, and the forms in which a served model takes pictures."""

import base64
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from ocr_ray.data.normalize import NormalizeConfig, normalize
from ocr_ray.data.resize import ResizeConfig
from ocr_ray.errors import DataError, WeightsError
from ocr_ray.registry.reader import OnnxReader
from ocr_ray.registry.served import as_image
from tests.bright import CARD, write_detector, write_pictures


@pytest.fixture
def image(tmp_path: Path) -> NDArray[np.uint8]:
    found = cv2.imread(str(write_pictures(tmp_path / "set", 1).parent / "0.png"))
    assert found is not None
    return found.astype(np.uint8)


def test_settings_come_from_the_file(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    polygon = OnnxReader(write_detector(tmp_path / "a.onnx", 0.8)).read(image)[0].polygon
    tight = replace(CARD, postprocess=replace(CARD.postprocess, unclip_ratio=0.3))
    smaller = OnnxReader(write_detector(tmp_path / "b.onnx", 0.8, tight)).read(image)[0].polygon
    assert np.ptp(smaller, axis=0).max() < np.ptp(polygon, axis=0).max()
    darker = replace(CARD, normalize=replace(CARD.normalize, mean=(0.5, 0.5, 0.5)))
    assert OnnxReader(write_detector(tmp_path / "c.onnx", 0.8, darker)).read(image) == []


def test_pictures_are_fed_as_in_training_bit_for_bit(tmp_path: Path) -> None:
    path = write_detector(tmp_path / "a.onnx", 0.8, replace(CARD, normalize=NormalizeConfig()))
    levels = np.arange(256, dtype=np.uint8)
    image = np.stack([np.tile(levels, (32, 1)), np.tile(levels[::-1], (32, 1)), np.tile(255 - levels // 3, (32, 1))], 2)
    wanted = normalize(torch.from_numpy(image.transpose(2, 0, 1).copy())[None], NormalizeConfig()).numpy()
    reader = OnnxReader(path)
    reader.resize = ResizeConfig(limit_type="max", limit_side_len=256)
    assert np.array_equal(reader.fed(image), wanted)


def test_a_file_that_was_not_exported_here_is_refused(tmp_path: Path) -> None:
    path = write_detector(tmp_path / "a.onnx", 0.8)
    model = onnx.load(str(path))
    del model.metadata_props[:]
    onnx.save(model, str(path))
    with pytest.raises(WeightsError, match=r"a\.onnx: its metadata have no 'normalize'"):
        OnnxReader(path)
    path.write_bytes(b"no net")
    with pytest.raises(WeightsError, match=r"a\.onnx: onnxruntime cannot run it"):
        OnnxReader(path)


def test_reading_needs_no_pytorch() -> None:
    code = "import sys, ocr_ray.registry.reader; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_bytes_base64_and_arrays_are_the_same_picture(image: NDArray[np.uint8]) -> None:
    data = cv2.imencode(".png", image)[1].tobytes()
    text = base64.b64encode(data).decode()
    forms = (data, text, base64.encodebytes(data).decode(), f"data:image/png;base64,{text}", image, image.tolist())
    for given in (*forms, image.astype(np.int64)):
        assert np.array_equal(as_image(given, "picture"), image)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"", "picture 1: is empty, expected a picture"),
        (b"abc", "picture 1: is no picture that OpenCV can decode"),
        ("not base64!", "picture 1: a text that is no base64"),
        (np.zeros((4, 5), np.uint8), r"picture 1: an array \(4, 5\), expected \(H, W, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), r"picture 1: an array \(0, 5, 3\), expected"),
        (np.zeros((4, 5, 3)), "picture 1: an array of float64, expected whole numbers from 0 to 255"),
        ([[[0, 0, 256]]], "picture 1: an array of int64, expected whole numbers from 0 to 255"),
        ([[1], [1, 2]], "picture 1: "),
        (None, "picture 1: is of type NoneType, expected bytes, base64 text or an array"),
    ],
)
def test_what_is_no_picture_is_said_in_one_line(given: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        as_image(given, "picture 1")
    assert "\n" not in str(error.value)
