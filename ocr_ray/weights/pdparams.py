"""PaddlePaddle's `.pdparams`: a pickle of name -> array, read without trusting it and without paddle.

A pickle can name any function of any module and have it called. Here it is given stand-ins for the few names that an
array of NumPy needs, and nothing else: neither NumPy's own parser of pickled state nor any other code is reached.
"""

import io
import math
import pickle
import pickletools
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocr_ray.errors import WeightsError, in_one_line
from ocr_ray.files import whole_file

NAME_TABLE = "StructuredToParameterName@@"  # paddle.save adds it: structured name -> name of the parameter


def read_pdparams(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every array of the file under its name there, as float32 in the order of the file.

    float16 and float64 are cast; uint16 is what paddle writes for bfloat16, and is read as such.
    Raises: WeightsError when the file is absent, empty, cut, no pickle of a dict, when it names anything but NumPy's
        arrays (the name is said), or holds anything but arrays of floats.
    """
    try:
        content = path.read_bytes()
    except OSError as e:
        raise WeightsError(f"{path}: cannot be read: {e.strerror}") from e
    if not content:
        raise WeightsError(f"{path}: is empty, expected a .pdparams file")
    try:
        _refuse_before_loading(content)
        plain = _Unpickler(io.BytesIO(content)).load()
    except _ForeignName as e:
        raise WeightsError(f"{path}: names {in_one_line(e)}, expected nothing but arrays; refused") from e
    except Exception as e:  # what a broken or hostile pickle can raise has no bound, says its documentation
        raise WeightsError(f"{path}: not a whole .pdparams file (starts {content[:8]!r}): {in_one_line(e)}") from e
    if not isinstance(plain, dict):
        raise WeightsError(f"{path}: holds a {type(plain).__name__}, expected a dict of names to arrays")
    arrays = {}
    for name, value in plain.items():
        if name == NAME_TABLE:
            continue
        if not isinstance(value, _Array) or value.array is None:
            raise WeightsError(f"{path}: {name!r} is a {type(value).__name__.strip('_')}, expected an array")
        arrays[name] = _as_float32(value.array, f"{path}: {name}")
    return arrays


def write_pdparams(path: Path, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    """Writes name -> float32 array as `paddle.load` (and plain `pickle.load`) reads it; whole or not at all.

    The opcodes are written here rather than by `pickle`, whose files would name `numpy._core` under NumPy 2: older
    NumPy, as paddle 2 needs it, has no such module.
    Raises: UserError when the folder cannot be written to.
    """
    with whole_file(path) as aside, aside.open("wb") as out:
        out.write(pickle.PROTO + b"\x04" + pickle.EMPTY_DICT + pickle.MARK)
        for name, array in arrays.items():
            raw = np.asarray(array, "<f4").tobytes()
            out.write(_text(name))
            out.write(_GLOBALS["_reconstruct"] + _GLOBALS["ndarray"] + _small_tuple(0) + _bytes(b"b"))
            out.write(pickle.TUPLE3 + pickle.REDUCE)
            out.write(pickle.MARK + _int(1) + pickle.MARK + b"".join(map(_int, np.shape(array))) + pickle.TUPLE)
            out.write(_FLOAT32 + pickle.NEWFALSE + _bytes(raw) + pickle.TUPLE + pickle.BUILD)
        out.write(pickle.SETITEMS + pickle.STOP)


class _ForeignName(Exception):
    """A pickle names something that no array needs."""


class _NdarrayName:
    """Stands for `numpy.ndarray` where it is only named."""


class _Dtype:
    """Stands for `numpy.dtype`."""

    def __init__(self, code: str, align: object = False, copy: object = True) -> None:
        if not isinstance(code, str):
            raise pickle.UnpicklingError("an array whose dtype is no text")
        if not re.fullmatch(r"[fiub][1248]", code):
            raise pickle.UnpicklingError(f"an array of dtype {code!r}")
        self.numpy: np.dtype[Any] = np.dtype(code).newbyteorder("<")

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.numpy = self.numpy.newbyteorder(">" if state[1] == ">" else "<")


class _Array:
    """Stands for an array: made empty, then given its shape, dtype and bytes."""

    def __init__(self, *made_of: object) -> None:
        self.array: NDArray[Any] | None = None

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.array = _array(raw, dtype, shape, "F" if fortran else "C")


def _array(raw: object, dtype: object, shape: object, order: object) -> NDArray[Any]:
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes | bytearray) or not isinstance(shape, tuple):
        raise pickle.UnpicklingError("an array that is not made of a dtype, a shape and bytes")
    if len(shape) > 32 or not all(isinstance(side, int) and side < 1 << 63 for side in shape):
        raise pickle.UnpicklingError("an array whose shape is not a few whole numbers")
    if min(shape, default=0) < 0:
        raise pickle.UnpicklingError(f"an array of shape {shape}")
    if math.prod(shape) * dtype.numpy.itemsize != len(raw):
        raise pickle.UnpicklingError(f"an array of shape {shape} {dtype.numpy} in {len(raw)} bytes")
    return np.frombuffer(raw, dtype.numpy).reshape(shape, order="F" if order == "F" else "C")


def _from_buffer(raw: object, dtype: object, shape: object, order: object, *rest: object) -> _Array:
    """`numpy.core.numeric._frombuffer`, by which protocol 5 makes arrays."""
    made = _Array()
    made.array = _array(raw, dtype, shape, order)
    return made


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """`_codecs.encode`, by which protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("bytes that are not written as latin1")
    return text.encode("latin1")


_STAND_INS: dict[str, Callable[..., object]] = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "numpy.ndarray": _NdarrayName,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[f"{module}.{name}"]
        except KeyError:
            raise _ForeignName(f"{module}.{name}") from None


def _refuse_before_loading(content: bytes) -> None:
    """Walks through a pickle without making its objects, for what would cost time or memory without bound.

    A pickle may remember an object under any number, and Python then makes room for all numbers below it. The key of a
    dict is hashed as soon as it is there, and a tuple of tuples of few bytes may take for ever to hash, or overflow
    the stack: a key has to be a text. Sets would hash as well, and no array needs them.

    Raises: ValueError for such a pickle; anything for one that is cut.
    """
    stack: list[object] = []  # of what pickletools says that it will be, a pyunicode or an anyobject
    marks: list[int] = []  # where in it the parts begin that some operations take whole
    memo: dict[int, object] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        name = opcode.name
        if name in _NEEDLESS:
            raise ValueError(f"uses {name}, which no array needs")
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            number = len(memo) if name == "MEMOIZE" else int(argument)  # type: ignore[arg-type]
            if number > count:
                raise ValueError(f"object {number} remembered after {count} steps")
            memo[number] = stack[-1]
            continue
        if name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument)])  # type: ignore[arg-type]
            continue
        if name == "MARK":
            marks.append(len(stack))
            continue
        before = opcode.stack_before
        if pickletools.markobject in before:
            part = marks.pop()
            bottom = part - before.index(pickletools.markobject)
        else:
            part = bottom = len(stack) - len(before)
        if bottom < (marks[-1] if marks else 0):
            raise ValueError(f"{name} takes more objects than there are")
        if name in _SETS_ITEMS and any(key not in _TEXTS for key in stack[part + _SETS_ITEMS[name] :: 2]):
            raise ValueError("a dict with a key that is no text")
        del stack[bottom:]
        stack += opcode.stack_after


_NEEDLESS = ("DUP", "POP", "POP_MARK", "EMPTY_SET", "ADDITEMS", "FROZENSET")
_SETS_ITEMS = {"SETITEM": 1, "SETITEMS": 0, "DICT": 0}  # and where the first key lies in what is taken
_TEXTS = (pickletools.pyunicode, pickletools.pystring, pickletools.pybytes_or_str)


def _as_float32(array: NDArray[Any], what: str) -> NDArray[np.float32]:
    if array.dtype == np.uint16:  # the upper half of a float32
        return (array.astype("<u4") << 16).view("<f4").astype(np.float32)
    if array.dtype.kind != "f":
        raise WeightsError(f"{what} is an array of {array.dtype}, expected floats")
    return np.array(array, np.float32, order="C")


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    raw = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(raw)) + raw


def _bytes(raw: bytes) -> bytes:
    return pickle.BINBYTES8 + struct.pack("<Q", len(raw)) + raw


def _int(value: int) -> bytes:
    return pickle.BININT + struct.pack("<i", value)


def _small_tuple(value: int) -> bytes:
    return _int(value) + pickle.TUPLE1


_GLOBALS = {
    "_reconstruct": _global("numpy.core.multiarray", "_reconstruct"),
    "ndarray": _global("numpy", "ndarray"),
    "dtype": _global("numpy", "dtype"),
}
_FLOAT32 = (
    _GLOBALS["dtype"] + _text("f4") + pickle.NEWFALSE + pickle.NEWTRUE + pickle.TUPLE3 + pickle.REDUCE
    + pickle.MARK + _int(3) + _text("<") + pickle.NONE * 3 + _int(-1) * 2 + _int(0) + pickle.TUPLE + pickle.BUILD
)  # fmt: skip
