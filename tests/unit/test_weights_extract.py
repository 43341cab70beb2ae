"""One sub-model out of many, and from one format to another."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ocr_ray.errors import UserError, WeightsError
from ocr_ray.models.db_head import DBHeadConfig
from ocr_ray.models.detector import Detector, DetectorConfig, teacher_config
from ocr_ray.models.lkpan import LKPANConfig
from ocr_ray.models.resnet_vd import ResNetVdConfig
from ocr_ray.weights.extract import convert, extract, write_weights
from ocr_ray.weights.keymap import to_paddle
from ocr_ray.weights.load import read_weights
from ocr_ray.weights.pdparams import read_pdparams, write_pdparams
from ocr_ray.weights.safetensors import read_safetensors

Arrays = dict[str, NDArray[np.float32]]
SMALL_TEACHER = DetectorConfig(
    ResNetVdConfig(layers=18, width=0.25), LKPANConfig(out_channels=32), DBHeadConfig(kernel_list=(7, 2, 2))
)


def arrays_of(cfg: DetectorConfig) -> Arrays:
    return {name: tensor.numpy() for name, tensor in Detector(cfg).state_dict().items()}


@pytest.fixture(scope="module")
def triple() -> dict[str, Arrays]:
    torch.manual_seed(0)
    return {
        "Student": arrays_of(DetectorConfig()),
        "Student2": arrays_of(DetectorConfig()),
        "Teacher": arrays_of(SMALL_TEACHER),
    }


def equal(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


@pytest.mark.parametrize("source", ["a.pdparams", "a.safetensors"])
@pytest.mark.parametrize("out", ["out.pdparams", "out.safetensors"])
@pytest.mark.parametrize("model", ["Student", "Student2", "Teacher"])
def test_each_sub_model_comes_out_alone(
    tmp_path: Path, triple: dict[str, Arrays], source: str, out: str, model: str
) -> None:
    write_weights(tmp_path / source, triple, {})
    line = extract(tmp_path / source, model, tmp_path / out)
    file = read_weights(tmp_path / out)
    assert list(file.arrays) == [""]
    assert equal(file.arrays[""], triple[model])
    assert line.startswith(f"{tmp_path / out}: {model} of {tmp_path / source}, {len(triple[model])} arrays, ")


def test_a_checkpoints_folder_can_be_extracted_from(tmp_path: Path, triple: dict[str, Arrays]) -> None:
    write_weights(tmp_path / "checkpoint" / "model.safetensors", triple, {})
    extract(tmp_path / "checkpoint", "Student2", tmp_path / "out.safetensors")
    assert equal(read_weights(tmp_path / "out.safetensors").arrays[""], triple["Student2"])


def test_metadata_of_all_and_of_the_one_travel(tmp_path: Path, triple: dict[str, Arrays]) -> None:
    said = {"normalize": "{}", "Student.detector": "mine", "Student2.detector": "other", "Teacher.detector": "big"}
    write_weights(tmp_path / "a.safetensors", triple, said)
    extract(tmp_path / "a.safetensors", "Student", tmp_path / "out.safetensors")
    assert read_weights(tmp_path / "out.safetensors").metadata == {"normalize": "{}", "detector": "mine"}


def test_pdparams_names_are_the_references(tmp_path: Path, triple: dict[str, Arrays], golden_file: object) -> None:
    keys = json.loads(golden_file("a_state_dict_keys.json").read_text())["student"]  # type: ignore[operator]
    write_weights(tmp_path / "a.pdparams", triple, {})
    stored = read_pdparams(tmp_path / "a.pdparams")
    student = [key.removeprefix("Student.") for key in stored if key.startswith("Student.")]
    assert student == [entry["key"] for entry in keys]
    assert any(key.startswith("Teacher.backbone.bb_3_1.conv1._batch_norm._variance") for key in stored)


@pytest.mark.parametrize("cfg", [DetectorConfig(), teacher_config()], ids=["student", "teacher"])
def test_there_and_back_again_is_bit_equal(tmp_path: Path, cfg: DetectorConfig) -> None:
    torch.manual_seed(1)
    arrays = arrays_of(cfg)
    write_weights(tmp_path / "a.safetensors", {"": arrays}, {"format": "x"})
    convert(tmp_path / "a.safetensors", tmp_path / "b.pdparams")
    convert(tmp_path / "b.pdparams", tmp_path / "c.safetensors")
    assert equal(read_safetensors(tmp_path / "c.safetensors")[0], arrays)
    convert(tmp_path / "c.safetensors", tmp_path / "d.pdparams")
    assert (tmp_path / "d.pdparams").stat().st_size == (tmp_path / "b.pdparams").stat().st_size
    assert equal(read_pdparams(tmp_path / "d.pdparams"), read_pdparams(tmp_path / "b.pdparams"))


def test_conversion_keeps_every_sub_model_and_the_metadata(tmp_path: Path, triple: dict[str, Arrays]) -> None:
    write_weights(tmp_path / "a.safetensors", triple, {"format": "x"})
    line = convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert read_weights(tmp_path / "b.safetensors").metadata == {"format": "x"}
    convert(tmp_path / "b.safetensors", tmp_path / "c.pdparams")
    file = read_weights(tmp_path / "c.pdparams")
    assert file.arrays.keys() == triple.keys()
    assert all(equal(file.arrays[model], triple[model]) for model in triple)
    assert "Student2: 301 arrays, 615,978 numbers" in line


def test_npz_comes_in(tmp_path: Path, triple: dict[str, Arrays]) -> None:
    np.savez(tmp_path / "a.npz", **triple["Teacher"])  # type: ignore[arg-type]
    convert(tmp_path / "a.npz", tmp_path / "b.safetensors")
    assert equal(read_weights(tmp_path / "b.safetensors").arrays[""], triple["Teacher"])


def test_a_bare_backbone_is_converted_without_its_classifier(tmp_path: Path, triple: dict[str, Arrays]) -> None:
    backbone = {name: array for name, array in triple["Teacher"].items() if name.startswith("backbone.")}
    named = {to_paddle(name).removeprefix("backbone."): array for name, array in backbone.items()}
    write_pdparams(tmp_path / "a.pdparams", named | {"out.bias": np.zeros(10, np.float32)})
    line = convert(tmp_path / "a.pdparams", tmp_path / "b.safetensors")
    assert line.endswith("; left out out.bias")
    assert equal(read_weights(tmp_path / "b.safetensors").arrays[""], backbone)


@pytest.mark.parametrize("name", ["out.onnx", "out.npz", "out", "out.pth"])
def test_a_suffix_that_is_not_written_ends_it_before_anything_is_read(tmp_path: Path, name: str) -> None:
    for call in (convert, lambda source, out: extract(source, "Student", out)):
        with pytest.raises(WeightsError, match=rf"{name}: expected a file to write that ends in \.safetensors or"):
            call(tmp_path / "absent.pdparams", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_when_there_is_nothing_to_write(tmp_path: Path, triple: dict[str, Arrays]) -> None:
    write_weights(tmp_path / "a.pdparams", {"Student": triple["Student"]}, {})
    with pytest.raises(WeightsError, match="no sub-model 'Teacher': expected one of Student"):
        extract(tmp_path / "a.pdparams", "Teacher", tmp_path / "out.safetensors")
    (tmp_path / "a.pdparams").write_bytes((tmp_path / "a.pdparams").read_bytes()[:5000])
    with pytest.raises(WeightsError, match="not a whole"):
        convert(tmp_path / "a.pdparams", tmp_path / "out.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["a.pdparams"]


def test_a_folder_that_is_a_file_is_a_users_mistake(tmp_path: Path, triple: dict[str, Arrays]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_weights(tmp_path / "file" / "a.pdparams", triple, {})
