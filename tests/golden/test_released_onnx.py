"""The released student as its users have it, an ONNX file in a wheel, there and back."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ocr_ray.files import file_digest
from ocr_ray.weights.extract import convert
from ocr_ray.weights.keymap import to_paddle
from ocr_ray.weights.load import read_weights

WHEEL = "rapidocr-onnxruntime==1.2.3"
MEMBER = "rapidocr_onnxruntime/models/ch_PP-OCRv3_det_infer.onnx"
DIGEST = "3439588c030faea393a54515f51e983d8e155b19a2e8aba7891934c1cf0de526"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file itself."""
    folder = tmp_path_factory.mktemp("released")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--timeout", "20", "--retries", "1"]
    done = subprocess.run([*pip, "--dest", str(folder), WHEEL], capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"no package index that has {WHEEL}: {done.stderr.strip()[-200:]}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        path = Path(files.extract(MEMBER, folder))
    assert file_digest(path) == DIGEST
    return path


def test_its_arrays_are_those_of_the_vectors(released: Path, golden_file: Callable[[str], Path]) -> None:
    arrays = read_weights(released).arrays[""]
    expected = np.load(golden_file("ppocrv3_det_student_real.npz"))
    assert {to_paddle(name) for name in arrays} == set(expected.files)
    assert all(array.tobytes() == expected[to_paddle(name)].tobytes() for name, array in arrays.items())


def test_it_goes_out_to_paddle_and_comes_back_bit_equal(released: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("ours.safetensors", "out.pdparams", "back.safetensors")]
    for source, out in zip([released, *files], files, strict=False):
        convert(source, out)
    original, back = (read_weights(path).arrays[""] for path in (released, files[-1]))
    assert original.keys() == back.keys()
    assert all(array.shape == back[name].shape for name, array in original.items())
    assert all(array.tobytes() == back[name].tobytes() for name, array in original.items())
