"""Names and arrays of weights against the reference's own."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from ocr_ray.models.detector import Detector, DetectorConfig, teacher_config
from ocr_ray.models.distillation import CMLTriple, DMLPair
from ocr_ray.weights.architecture import recognise
from ocr_ray.weights.extract import convert
from ocr_ray.weights.keymap import to_ours, to_paddle
from ocr_ray.weights.load import SUB_MODELS, load_file, read_weights
from ocr_ray.weights.onnx_in import FIELDS, layers
from ocr_ray.weights.pdparams import read_pdparams


def by_recipe(salt: str, key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The value that the vectors' README prescribes for the array `key`."""
    n = np.random.RandomState(zlib.crc32((salt + key).encode())).standard_normal(shape)
    if key.endswith("._mean"):
        n = 0.1 * n
    elif key.endswith("._variance"):
        n = 1 + 0.5 * abs(n)
    elif len(shape) == 1:
        n = 1 + 0.1 * n if key.endswith(".weight") else 0.1 * n
    else:
        n = n * np.sqrt(1 / np.prod(shape[1:]))
    return n.astype(np.float32)


def build(model: str) -> nn.Module:
    match model:
        case "student":
            return Detector(DetectorConfig())
        case "teacher":
            return Detector(teacher_config())
        case "dml":
            return DMLPair(Detector(teacher_config()), Detector(teacher_config()))
        case _:
            return CMLTriple(Detector(DetectorConfig()), Detector(DetectorConfig()), Detector(teacher_config()))


def without_prefix(key: str) -> tuple[str, str]:
    head, _, rest = key.partition(".")
    return (f"{head}.", rest) if head in SUB_MODELS else ("", key)


@pytest.mark.parametrize("model", ["student", "teacher", "cml", "dml"])
def test_every_name_maps_in_and_out(golden_file: Callable[[str], Path], model: str) -> None:
    entries = json.loads(golden_file("a_state_dict_keys.json").read_text())[model]
    ours = build(model).state_dict()
    mapped = {}
    for name, tensor in ours.items():
        prefix, rest = without_prefix(name)
        mapped[prefix + to_paddle(rest)] = list(tensor.shape)
        assert to_ours(to_paddle(rest)) == rest
        assert to_ours(rest) == rest
    expected = {entry["key"]: entry["shape"] for entry in entries}
    assert list(mapped) == list(expected)  # in the reference's order as well
    assert mapped == expected
    back = [prefix + to_ours(rest) for prefix, rest in map(without_prefix, expected)]
    assert back == list(ours)
    assert [prefix + to_paddle(to_ours(rest)) for prefix, rest in map(without_prefix, expected)] == list(expected)


@pytest.mark.parametrize("model", ["student", "teacher", "cml", "dml"])
def test_the_trainable_numbers_are_the_references(golden_file: Callable[[str], Path], model: str) -> None:
    entries = json.loads(golden_file("a_state_dict_keys.json").read_text())[model]
    expected = sum(int(np.prod(entry["shape"])) for entry in entries if entry["trainable"])
    assert sum(p.numel() for p in build(model).parameters() if p.requires_grad) == expected


def test_the_stored_student_equals_the_recipe_bit_for_bit(golden: Path, salt: str) -> None:
    arrays = read_pdparams(golden / "a_student_detinit.pdparams")
    assert len(arrays) == len(Detector(DetectorConfig()).state_dict())
    for key, array in arrays.items():
        assert array.tobytes() == by_recipe(salt, key, array.shape).tobytes(), key


def test_the_stored_student_loads_whole_and_bit_for_bit(golden: Path, salt: str) -> None:
    file = read_weights(golden / "a_student_detinit.pdparams")
    assert recognise(file.arrays[""], "the stored student") == DetectorConfig()
    detector = Detector(DetectorConfig())
    assert load_file(detector, file, "the student").whole
    for name, tensor in detector.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), by_recipe(salt, to_paddle(name), tuple(tensor.shape)))


def test_the_stored_student_survives_conversion(golden: Path, tmp_path: Path) -> None:
    source = golden / "a_student_detinit.pdparams"
    convert(source, tmp_path / "ours.safetensors")
    convert(tmp_path / "ours.safetensors", tmp_path / "back.pdparams")
    original, back = read_pdparams(source), read_pdparams(tmp_path / "back.pdparams")
    assert original.keys() == back.keys()
    assert all(original[key].tobytes() == back[key].tobytes() for key in original)


def test_onnx_names_follow_the_order_of_construction(golden_file: Callable[[str], Path]) -> None:
    pairs = json.loads(golden_file("ppocrv3_det_onnx_keymap.json").read_text())
    counted = {
        f"{prefix}.{ours}": f"{kind}_{number}.{theirs}"
        for kind, prefixes in layers().items()
        for number, prefix in enumerate(prefixes)
        for theirs, ours in FIELDS[kind].items()
    }
    without_bias = [key for key in counted if key.endswith(".bias") and key not in pairs]
    assert {key: name for key, name in counted.items() if key not in without_bias} == pairs
    # Convolutions before a normalisation and the neck's wide ones have none.
    assert all(key.removesuffix("bias") + "weight" in pairs for key in without_bias)
