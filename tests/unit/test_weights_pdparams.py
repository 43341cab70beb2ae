"""The restricted reader and the writer of `.pdparams`."""

import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ocr_ray.errors import WeightsError
from ocr_ray.weights.pdparams import NAME_TABLE, read_pdparams, write_pdparams


@pytest.fixture
def arrays() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "backbone.conv.conv.weight": (8, 3, 3, 3),
        "backbone.conv.bn._mean": (8,),
        "ein.Schlüssel": (1, 300),
        "scalar": (),
    }
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def write_raw(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_what_pickle_writes_of_arrays(
    tmp_path: Path, arrays: dict[str, NDArray[np.float32]], protocol: int
) -> None:
    path = write_raw(tmp_path / "a.pdparams", {**arrays, NAME_TABLE: {"scalar": "conv2d_0.w_0"}}, protocol)
    read = read_pdparams(path)
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == np.float32
        assert read[name].flags.writeable


def test_arrays_in_column_order_and_big_endian_come_out_the_same(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    path = write_raw(tmp_path / "a.pdparams", {"f": np.asfortranarray(array), "big": array.astype(">f4")})
    read = read_pdparams(path)
    np.testing.assert_array_equal(read["f"], array)
    np.testing.assert_array_equal(read["big"], array)


def test_half_precision_is_cast(tmp_path: Path) -> None:
    values = np.array([1.0, -0.5, 3.140625, 65280.0], np.float32)  # exact in bfloat16
    bfloat16 = (values.view(np.uint32) >> 16).astype(np.uint16)
    path = write_raw(
        tmp_path / "a.pdparams", {"f2": values.astype(np.float16), "f8": values.astype(np.float64), "bf": bfloat16}
    )
    read = read_pdparams(path)
    np.testing.assert_array_equal(read["bf"], values)
    np.testing.assert_array_equal(read["f8"], values)
    np.testing.assert_array_equal(read["f2"], values.astype(np.float16).astype(np.float32))
    assert {array.dtype for array in read.values()} == {np.dtype(np.float32)}


def test_written_files_come_back_bit_for_bit(tmp_path: Path, arrays: dict[str, NDArray[np.float32]]) -> None:
    path = tmp_path / "a.pdparams"
    write_pdparams(path, arrays)
    read = read_pdparams(path)
    assert list(read) == list(arrays)
    assert all(read[name].tobytes() == array.tobytes() for name, array in arrays.items())
    assert all(read[name].shape == array.shape for name, array in arrays.items())


def test_written_files_load_in_a_plain_interpreter(tmp_path: Path, arrays: dict[str, NDArray[np.float32]]) -> None:
    path = tmp_path / "a.pdparams"
    write_pdparams(path, arrays)
    code = (
        "import pickle, sys, numpy\n"
        "loaded = pickle.load(open(sys.argv[1], 'rb'), encoding='latin1')\n"
        "assert type(loaded) is dict and 'ocr_ray' not in sys.modules\n"
        "for name, array in loaded.items():\n"
        "    assert type(array) is numpy.ndarray and array.dtype == numpy.float32 and array.flags.writeable\n"
        "    print(name, list(array.shape), array.astype('f8').sum())\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    ran = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code, str(path)],
        capture_output=True, text=True, encoding="utf-8", check=True, env=environment,
    )  # fmt: skip
    expected = [f"{name} {list(array.shape)} {array.astype('f8').sum()}" for name, array in arrays.items()]
    assert ran.stdout.splitlines() == expected


def test_written_files_name_nothing_that_older_numpy_lacks(
    tmp_path: Path, arrays: dict[str, NDArray[np.float32]]
) -> None:
    path = tmp_path / "a.pdparams"
    write_pdparams(path, arrays)
    named = {argument for opcode, argument, _ in pickletools.genops(path.read_bytes()) if opcode.name == "GLOBAL"}
    assert named == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}


class Bomb:
    """Unpickled in the usual way, it makes a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (self.folder,))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_pickle_is_refused_by_name_and_does_not_run(tmp_path: Path, protocol: int) -> None:
    folder = tmp_path / "made"
    path = write_raw(tmp_path / "a.pdparams", {"weight": Bomb(str(folder))}, protocol)
    with pytest.raises(WeightsError, match=r"a\.pdparams: names (posix|nt)\.mkdir, expected nothing but arrays"):
        read_pdparams(path)
    assert not folder.exists()
    pickle.loads(path.read_bytes())
    assert folder.exists()  # it would have run


@pytest.mark.parametrize(
    ("module", "name"),
    [("builtins", "eval"), ("builtins", "getattr"), ("numpy", "load"), ("numpy.core.multiarray", "fromfile")],
)
def test_every_other_global_is_refused_by_name(tmp_path: Path, module: str, name: str) -> None:
    path = tmp_path / "a.pdparams"
    path.write_bytes(pickle.PROTO + b"\x02" + pickle.GLOBAL + f"{module}\n{name}\n".encode() + pickle.STOP)
    with pytest.raises(WeightsError, match=rf"names {module}\.{name},"):
        read_pdparams(path)


def test_a_container_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.pdparams", OrderedDict(weight=np.zeros(2, np.float32)))
    with pytest.raises(WeightsError, match=r"names collections\.OrderedDict"):
        read_pdparams(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "holds a list, expected a dict"),
        ({"epoch": 3}, "'epoch' is a int, expected an array"),
        ({"nested": {"weight": np.zeros(2, np.float32)}}, "'nested' is a dict, expected an array"),
        ({"count": np.arange(3)}, "count is an array of int64, expected floats"),
        ({3: np.zeros(2, np.float32)}, "a dict with a key that is no text"),
        ({"text": np.array(["a"])}, "an array of dtype 'U1'"),
        ({"objects": np.array([None])}, "an array of dtype 'O8'"),
    ],
)
def test_what_is_no_dict_of_arrays_is_refused(tmp_path: Path, content: object, reason: str) -> None:
    path = write_raw(tmp_path / "a.pdparams", content)
    with pytest.raises(WeightsError, match=reason) as caught:
        read_pdparams(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_an_empty_or_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.pdparams: cannot be read: No such file"):
        read_pdparams(tmp_path / "none.pdparams")
    (tmp_path / "a.pdparams").touch()
    with pytest.raises(WeightsError, match="is empty"):
        read_pdparams(tmp_path / "a.pdparams")


def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path: Path, arrays: dict[str, NDArray[np.float32]]) -> None:
    whole = tmp_path / "whole.pdparams"
    write_pdparams(whole, arrays)
    content = whole.read_bytes()
    path = tmp_path / "cut.pdparams"
    for length in range(1, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"cut\.pdparams: not a whole \.pdparams file"):
            read_pdparams(path)


def test_a_web_page_in_the_place_of_a_file_is_recognisable(tmp_path: Path) -> None:
    path = tmp_path / "a.pdparams"
    path.write_text("<!DOCTYPE html>\n<title>404</title>\n")
    with pytest.raises(WeightsError, match=r"not a whole \.pdparams file \(starts b'<!DOCTYP'\)") as caught:
        read_pdparams(path)
    assert "\n" not in str(caught.value)


def array_pickle(shape: tuple[int, ...], raw: bytes) -> bytes:
    out = io.BytesIO()
    out.write(pickle.PROTO + b"\x04" + pickle.EMPTY_DICT + pickle.MARK + pickle.SHORT_BINUNICODE + b"\x01a")
    out.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01(")
    out.write(b"".join(pickle.LONG1 + b"\x08" + struct.pack("<q", side) for side in shape) + b"t")
    out.write(b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x89\x88\x87R(K\x03X\x01\x00\x00\x00<NNNJ")
    out.write(struct.pack("<i", -1) + b"J" + struct.pack("<i", -1) + b"K\x00tb\x89")
    out.write(pickle.BINBYTES8 + struct.pack("<Q", len(raw)) + raw + b"tbu.")
    return out.getvalue()


def test_the_array_that_the_next_tests_break_is_read_when_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.pdparams"
    path.write_bytes(array_pickle((2, 1), struct.pack("<ff", 1.5, -2)))
    np.testing.assert_array_equal(read_pdparams(path)["a"], [[1.5], [-2]])


@pytest.mark.parametrize("shape", [(1 << 40,), (1 << 40, 0), (-1, 4), (1 << 62, 1 << 62)])
def test_a_claim_of_a_huge_array_is_refused_and_not_allocated(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "a.pdparams"
    path.write_bytes(array_pickle(shape, b"\x00" * 16))
    with pytest.raises(WeightsError, match="an array of shape"):
        read_pdparams(path)


def test_a_claim_of_huge_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pdparams"
    path.write_bytes(pickle.PROTO + b"\x04" + pickle.BINBYTES8 + struct.pack("<Q", 1 << 50) + b"abc.")
    with pytest.raises(WeightsError, match="not a whole"):
        read_pdparams(path)


def test_a_claim_of_a_huge_memo_is_refused(tmp_path: Path) -> None:
    # Python would make room for four thousand million entries, and touch each.
    path = tmp_path / "a.pdparams"
    path.write_bytes(pickle.PROTO + b"\x04}" + pickle.LONG_BINPUT + struct.pack("<I", (1 << 32) - 1) + b".")
    with pytest.raises(WeightsError, match="object 4294967295 remembered after 2 steps"):
        read_pdparams(path)


def nested(levels: int, shared: bool) -> bytes:
    """A tuple in a tuple and so on. `shared`: each level holds the one below twice, so that to hash it takes 2^levels
    steps; else it is as deep as it is long."""
    level = (pickle.MEMOIZE + b"h%c" + pickle.TUPLE2) if shared else pickle.TUPLE1
    return b")" + b"".join(level.replace(b"%c", bytes([n % 256])) for n in range(levels))


@pytest.mark.parametrize("dict_of", [b"}%bNs.", b"}(%bNu.", b"(%bNd."], ids=["SETITEM", "SETITEMS", "DICT"])
@pytest.mark.parametrize(("levels", "shared"), [(40, True), (300_000, False)])
def test_a_key_that_cannot_be_hashed_in_time_is_refused_unhashed(
    tmp_path: Path, dict_of: bytes, levels: int, shared: bool
) -> None:
    path = tmp_path / "a.pdparams"
    path.write_bytes(pickle.PROTO + b"\x04" + dict_of.replace(b"%b", nested(levels, shared)))
    with pytest.raises(WeightsError, match="a dict with a key that is no text"):
        read_pdparams(path)


@pytest.mark.parametrize("of_array", [b"%b\x89\x88\x87R", b"%b\x85R"])
def test_a_type_of_numbers_that_cannot_be_told_in_time_is_refused(tmp_path: Path, of_array: bytes) -> None:
    path = tmp_path / "a.pdparams"
    path.write_bytes(pickle.PROTO + b"\x04cnumpy\ndtype\n" + of_array.replace(b"%b", nested(40, True)) + b".")
    with pytest.raises(WeightsError, match="an array whose dtype is no text"):
        read_pdparams(path)


@pytest.mark.parametrize("content", [b"\x8f(K\x01\x90.", b"(K\x01\x91.", b"}2.", b"}0.", b"(K\x01u.", b"s.", b"u."])
def test_what_no_array_needs_or_takes_more_than_there_is_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pdparams"
    path.write_bytes(pickle.PROTO + b"\x04" + content)
    with pytest.raises(WeightsError, match=r"a\.pdparams: not a whole \.pdparams file"):
        read_pdparams(path)


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_file_is_refused_or_read_never_a_crash(
    tmp_path: Path, arrays: dict[str, NDArray[np.float32]], seed: int
) -> None:
    path = write_raw(tmp_path / "a.pdparams", arrays)
    rng = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    for position in rng.integers(0, len(content), 12):
        content[position] = rng.integers(256)
    path.write_bytes(bytes(content))
    try:
        read = read_pdparams(path)
    except WeightsError:
        return
    assert all(array.dtype == np.float32 for array in read.values())
