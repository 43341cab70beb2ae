"""Whatever the names and numbers, what is written comes back."""

import string
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ocr_ray.errors import WeightsError
from ocr_ray.weights.keymap import to_ours, to_paddle
from ocr_ray.weights.pdparams import read_pdparams, write_pdparams
from ocr_ray.weights.safetensors import read_safetensors, write_safetensors

names = st.text(string.ascii_letters + string.digits + "._é漢", min_size=1, max_size=40)
# Every bit pattern, the infinities and NaNs included: equality is of bytes.
arrays = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, max_side=5), elements=st.floats(width=32))
files = st.dictionaries(names, arrays, max_size=6)


@given(files)
@settings(deadline=None)  # of files on a shared disk
def test_pdparams_come_back(stored: dict[str, NDArray[np.float32]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pdparams"
        write_pdparams(path, stored)
        read = read_pdparams(path)
    assert list(read) == list(stored)
    assert all(read[name].tobytes() == array.tobytes() for name, array in stored.items())
    assert all(read[name].shape == array.shape for name, array in stored.items())


@given(files.filter(bool), st.dictionaries(st.text(max_size=10), st.text(max_size=30), max_size=3))
@settings(deadline=None)
def test_safetensors_come_back(stored: dict[str, NDArray[np.float32]], metadata: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        write_safetensors(path, stored, metadata)
        read, said = read_safetensors(path)
    assert said == metadata
    assert read.keys() == stored.keys()
    assert all(read[name].tobytes() == array.tobytes() for name, array in stored.items())


@given(st.binary(max_size=300))
def test_bytes_that_are_no_weights_are_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, read in (("a.pdparams", read_pdparams), ("a.safetensors", read_safetensors)):
            path = Path(folder) / name
            path.write_bytes(content)
            try:
                read(path)
            except WeightsError:
                continue
            raise AssertionError(f"{content!r} was read as {name}")


layers = st.sampled_from(["conv0", "conv1", "conv2", "short"])
fields = st.sampled_from(["conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"])
blocks = st.builds("backbone.stages.{}.{}.{}.{}".format, st.integers(0, 3), st.integers(0, 40), layers, fields)


@given(blocks)
def test_names_of_blocks_go_out_and_come_back(name: str) -> None:
    assert to_paddle(name) != name
    assert to_ours(to_paddle(name)) == name
    assert to_ours(name) == name
