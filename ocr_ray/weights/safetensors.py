"""safetensors: our own format, arrays with texts about them; and NumPy's `.npz`, which holds arrays alone."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from ocr_ray.errors import WeightsError, in_one_line
from ocr_ray.files import whole_file

LENGTH = 8
"""Bytes at a file's start that hold the length of its header."""
ALIGNED = 8
"""Arrays begin at a multiple of so many bytes."""


def read_safetensors(path: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """The arrays under their names in the file, as float32, and the file's metadata.

    Raises: WeightsError when the file is absent, empty, cut or corrupted, or holds anything but floats.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    arrays = {}
    try:
        with safe_open(path, framework="pt") as stored:  # NumPy has no bfloat16
            for name in stored.keys():  # noqa: SIM118, it is not a mapping
                tensor = stored.get_tensor(name)
                if not tensor.is_floating_point():
                    raise WeightsError(f"{path}: {name} is an array of {tensor.dtype}, expected floats")
                # A copy: else the array is a window on the file.
                arrays[name] = tensor.to(torch.float32, copy=True).numpy()
            return arrays, dict(stored.metadata() or {})
    except WeightsError:
        raise
    except Exception as e:  # what a broken or hostile file makes of a parser has no bound
        raise WeightsError(f"{path}: not a whole safetensors file: {in_one_line(e)}") from e


def write_safetensors(path: Path, arrays: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, str]) -> None:
    """Writes arrays and metadata, whole or not at all; the same ones are the same bytes.

    Raises: UserError when the folder cannot be written to.
    """
    contiguous = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    data = save(contiguous, dict(metadata))
    with whole_file(path) as aside:
        aside.write_bytes(_in_order(data))


def _in_order(data: bytes) -> bytes:
    """The same file, its metadata sorted: the package leaves them in another order each time."""
    end = LENGTH + int.from_bytes(data[:LENGTH], "little")
    header = json.loads(data[LENGTH:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNED)
    return len(text).to_bytes(LENGTH, "little") + text + data[end:]


def read_npz(path: Path) -> dict[str, NDArray[np.float32]]:
    """The arrays of a `.npz` file under their names there, as float32; objects in it are refused unread.

    Raises: WeightsError when the file is absent, empty, cut or corrupted, or holds anything but floats.
    """
    arrays = {}
    try:
        with path.open("rb") as stream:
            stored = np.load(stream, allow_pickle=False)
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise WeightsError(f"{path}: holds one array without a name, expected a .npz file")
            for name in stored.files:
                array = stored[name]
                if array.dtype.kind != "f":
                    raise WeightsError(f"{path}: {name} is an array of {array.dtype}, expected floats")
                arrays[name] = array.astype(np.float32)
    except FileNotFoundError as e:
        raise WeightsError(f"{path}: no such file") from e
    except WeightsError:
        raise
    except Exception as e:  # of zipfile, of its decompressors, and of the tokeniser that reads an array's header
        raise WeightsError(f"{path}: not a whole .npz file: {in_one_line(e)}") from e
    return arrays
