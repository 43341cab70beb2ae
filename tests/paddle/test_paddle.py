"""Weights that go out are PaddlePaddle's: its own loader takes them, key by key.

Runs in an environment of its own, which `make paddle` makes: PaddlePaddle does not share one with this package's pins.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ocr_ray.weights.extract import convert, extract, write_weights
from ocr_ray.weights.keymap import to_ours
from ocr_ray.weights.load import SUB_MODELS

SCRIPT = Path(__file__).with_name("load_in_paddle.py")
VARIABLE = "OCR_RAY_PADDLE_PYTHON"


@pytest.fixture(scope="module")
def paddle_python() -> str:
    """A Python that has PaddlePaddle."""
    if found := os.environ.get(VARIABLE):
        return found
    if importlib.util.find_spec("paddle") is None:
        pytest.skip(f"PaddlePaddle is not here: `make paddle`, or name a Python that has it in {VARIABLE}")
    return sys.executable


def in_paddle(python: str, file: Path, expected: dict[str, NDArray[np.float32]]) -> subprocess.CompletedProcess[str]:
    np.savez(file.with_suffix(".npz"), **expected)
    command = [python, str(SCRIPT), str(file), str(file.with_suffix(".npz"))]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def drawn(golden_file: Callable[[str], Path], model: str) -> dict[str, NDArray[np.float32]]:
    """An array of random bits' worth for each key of the reference's net."""
    rng = np.random.default_rng(5)
    entries = json.loads(golden_file("a_state_dict_keys.json").read_text())[model]
    return {entry["key"]: rng.standard_normal(entry["shape"]).astype(np.float32) for entry in entries}


def ours(arrays: dict[str, NDArray[np.float32]]) -> dict[str, dict[str, NDArray[np.float32]]]:
    """By sub-model, under our names."""
    nested: dict[str, dict[str, NDArray[np.float32]]] = {}
    for key, array in arrays.items():
        head, _, rest = key.partition(".")
        model, name = (head, rest) if head in SUB_MODELS else ("", key)
        nested.setdefault(model, {})[to_ours(name)] = array
    return nested


@pytest.mark.parametrize("model", ["student", "teacher", "cml", "dml"])
def test_what_goes_out_is_loaded_by_paddle(
    paddle_python: str, golden_file: Callable[[str], Path], tmp_path: Path, model: str
) -> None:
    expected = drawn(golden_file, model)
    write_weights(tmp_path / "ours.safetensors", ours(expected), {})
    convert(tmp_path / "ours.safetensors", tmp_path / "out.pdparams")
    done = in_paddle(paddle_python, tmp_path / "out.pdparams", expected)
    assert done.returncode == 0, done.stderr
    assert f"{len(expected)} arrays are equal" in done.stdout


def test_the_student_of_a_whole_checkpoint_is_loaded_by_paddle(
    paddle_python: str, golden_file: Callable[[str], Path], tmp_path: Path
) -> None:
    arrays = drawn(golden_file, "cml")
    write_weights(tmp_path / "ours.safetensors", ours(arrays), {})
    extract(tmp_path / "ours.safetensors", "Student2", tmp_path / "student.pdparams")
    expected = {key.removeprefix("Student2."): a for key, a in arrays.items() if key.startswith("Student2.")}
    done = in_paddle(paddle_python, tmp_path / "student.pdparams", expected)
    assert done.returncode == 0, done.stderr
    assert f"{len(expected)} arrays are equal" in done.stdout


def test_paddle_would_see_a_difference(paddle_python: str, golden_file: Callable[[str], Path], tmp_path: Path) -> None:
    expected = drawn(golden_file, "student")
    write_weights(tmp_path / "out.pdparams", ours(expected), {})
    changed = next(iter(expected))
    expected[changed] = np.nextafter(expected[changed], np.float32(np.inf))
    done = in_paddle(paddle_python, tmp_path / "out.pdparams", expected)
    assert done.returncode == 1
    assert f"{changed} differs" in done.stderr
