"""safetensors and `.npz`: what is whole comes back, what is not is refused."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from ocr_ray.errors import WeightsError
from ocr_ray.weights.safetensors import read_npz, read_safetensors, write_safetensors


@pytest.fixture
def arrays() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return {"b.weight": rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "a": np.zeros(5, np.float32)}


def test_arrays_and_metadata_come_back(tmp_path: Path, arrays: dict[str, NDArray[np.float32]]) -> None:
    metadata = {"format": "x", "origin": '{"hmean": 0.5, "run": "Straße"}'}
    path = tmp_path / "new" / "a.safetensors"
    write_safetensors(path, arrays, metadata)
    read, said = read_safetensors(path)
    assert said == metadata
    assert read.keys() == arrays.keys()
    assert all(read[name].tobytes() == array.tobytes() for name, array in arrays.items())
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]


def test_the_same_arrays_and_metadata_are_the_same_bytes(
    tmp_path: Path, arrays: dict[str, NDArray[np.float32]]
) -> None:
    metadata = {f"key {i}": "ä\n\t\u0001" * i for i in range(12)}
    files = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for file in files:
        write_safetensors(file, arrays, dict(reversed(metadata.items())))
    assert {file.read_bytes() for file in files} == {files[0].read_bytes()}
    assert read_safetensors(files[0])[1] == metadata
    assert int.from_bytes(files[0].read_bytes()[:8], "little") % 8 == 0


def test_what_was_read_does_not_change_with_the_file(tmp_path: Path, arrays: dict[str, NDArray[np.float32]]) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, arrays, {})
    read, _ = read_safetensors(path)
    with path.open("r+b") as stream:
        stream.seek(-200, 2)
        stream.write(b"\xff" * 200)
    np.testing.assert_array_equal(read["b.weight"], arrays["b.weight"])


def test_arrays_that_are_views_are_written_as_they_look(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_safetensors(tmp_path / "a.safetensors", {"t": array.T, "s": array[:, ::2]}, {})
    read, _ = read_safetensors(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(read["t"], array.T)
    np.testing.assert_array_equal(read["s"], array[:, ::2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_cast(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.tensor([1.0, -0.5, 3.140625])
    save_file({"a": values.to(dtype)}, tmp_path / "a.safetensors")
    read, _ = read_safetensors(tmp_path / "a.safetensors")
    assert read["a"].dtype == np.float32
    np.testing.assert_array_equal(read["a"], values.numpy())


def test_integers_are_refused_by_name(tmp_path: Path) -> None:
    save_file({"epoch": torch.tensor([3])}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"epoch is an array of torch\.int64, expected floats"):
        read_safetensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize("kept", [0, 4, 8, 60, -1, -400])
def test_cut_files_are_refused(tmp_path: Path, arrays: dict[str, NDArray[np.float32]], kept: int) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, arrays, {"format": "x"})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"a\.safetensors: not a whole safetensors file") as caught:
        read_safetensors(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"not weights at all, but some longer text",
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 66) + b'{"a":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,4]}}   ' + b"\0" * 4,
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        read_safetensors(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.safetensors: no such file"):
        read_safetensors(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match=r"none\.npz: no such file"):
        read_npz(tmp_path / "none.npz")


def test_npz_comes_back(tmp_path: Path, arrays: dict[str, NDArray[np.float32]]) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    read = read_npz(tmp_path / "a.npz")
    assert read.keys() == arrays.keys()
    assert all(read[name].tobytes() == array.tobytes() for name, array in arrays.items())


def test_objects_in_an_npz_are_refused_unread(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(WeightsError, match="allow_pickle=False"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("kept", [0, 3, 100, -30])
def test_cut_npz_files_are_refused(tmp_path: Path, arrays: dict[str, NDArray[np.float32]], kept: int) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"a\.npz: not a whole \.npz file") as caught:
        read_npz(path)
    assert "\n" not in str(caught.value)


def test_a_lone_array_is_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3, np.float32))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(WeightsError, match="one array without a name"):
        read_npz(tmp_path / "a.npz")


def flipped(content: bytes) -> bytes:
    """Bytes in the middle of what was compressed."""
    middle = len(content) // 2
    return content[:middle] + bytes(b ^ 0xFF for b in content[middle : middle + 40]) + content[middle + 40 :]


def said(content: bytes, offset: int, byte: int) -> bytes:
    """A byte of the member's header in its place, and the same two further on in the archive's directory."""
    changed = bytearray(content)
    changed[offset] = changed[content.index(b"PK\x01\x02") + offset + 2] = byte
    return bytes(changed)


def encrypted(content: bytes) -> bytes:
    return said(content, 6, 1)


def of_another_method(content: bytes) -> bytes:
    return said(content, 8, 99)


@pytest.mark.parametrize("spoil", [flipped, encrypted, of_another_method])
def test_an_archive_that_zipfile_gives_up_on_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.random.default_rng(0).standard_normal(999).astype(np.float32))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(WeightsError, match=r"a\.npz: not a whole \.npz file: \S") as caught:
        read_npz(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "header", ["{'descr': '<f4", "('", "[" * 3000, "{'descr': [], 'fortran_order': 0, 'shape': 1}"]
)
def test_an_array_whose_header_is_no_python_is_refused(tmp_path: Path, header: str) -> None:
    raw = header.encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw + b"\0" * 16)
    with pytest.raises(WeightsError, match=r"a\.npz: not a whole \.npz file: \S") as caught:
        read_npz(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)
