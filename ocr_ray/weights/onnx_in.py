"""The released PP-OCRv3 detector as ONNX: its arrays under PaddleOCR's names, BatchNorm statistics kept.

The exporter keeps a layer's kind and a number (`conv2d_7.w_0`), counted per kind in the order in which PaddleOCR's
constructors make the layers. That order is written down here. The exported net has no `head.thresh`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ocr_ray.errors import WeightsError, in_one_line

if TYPE_CHECKING:
    from onnx import ModelProto

UNITS_OF_STAGE = (3, 3, 6, 3)
OURS = "ocr_ray detector"
"""How `format` begins in the metadata of files that we exported."""
FIELDS = {  # what the exporter calls the arrays of a layer, and what PaddleOCR calls them
    "conv2d": {"w_0": "weight", "b_0": "bias"},
    "conv2d_transpose": {"w_0": "weight", "b_0": "bias"},
    "batch_norm": {"w_0": "weight", "b_0": "bias", "w_1": "_mean", "w_2": "_variance"},
}
TENSOR = re.compile(r"(conv2d|conv2d_transpose|batch_norm)_(\d{1,9})\.([wb]_\d)")


class ForeignNetError(WeightsError):
    """A whole ONNX file, all its arrays in it, of another net than the one known here."""


def read_onnx(path: Path) -> dict[str, NDArray[np.float32]]:
    """The 288 arrays of the released detector under PaddleOCR's names, as float32.

    Raises: ForeignNetError when it is another net than that detector (what was seen is said); WeightsError when the
        file is absent, cut or no ONNX file, when it keeps its arrays in other files, or when the package `onnx` is not
        installed (extra `ocr-ray[onnx]`).
    """
    graph = _read(path).graph
    if not graph.node:
        raise WeightsError(f"{path}: not an ONNX file: it has no nodes")
    tensors = {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant" and node.output
        for attribute in node.attribute
        if attribute.name == "value"
    }
    tensors |= {tensor.name: tensor for tensor in graph.initializer}  # where newer exporters put them
    import onnx

    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors.values()):
        raise WeightsError(f"{path}: keeps its arrays in other files, expected one file that holds them")
    tensors = {name: tensor for name, tensor in tensors.items() if TENSOR.fullmatch(name)}
    stored = {}
    for name, tensor in tensors.items():
        try:
            stored[name] = onnx.numpy_helper.to_array(tensor)
        except Exception as e:  # of the type, the shape or the bytes that the file claims
            raise WeightsError(f"{path}: not a whole ONNX file: {name} is no array: {in_one_line(e)}") from e
    return _renamed(stored, path)


def onnx_metadata(path: Path) -> dict[str, str]:
    """The texts that an ONNX file keeps beside its graph. Raises: WeightsError as `read_onnx`."""
    return {entry.key: entry.value for entry in _read(path).metadata_props}


def _read(path: Path) -> "ModelProto":
    try:
        import onnx
    except ImportError as e:
        raise WeightsError(f"{path}: reading ONNX needs the package onnx: pip install 'ocr-ray[onnx]'") from e
    try:
        return onnx.load(str(path), load_external_data=False)
    except FileNotFoundError as e:
        raise WeightsError(f"{path}: no such file") from e
    except Exception as e:  # what a broken or hostile file makes of a parser has no bound
        raise WeightsError(f"{path}: not a whole ONNX file: {in_one_line(e)}") from e


def _says_it_was_exported(path: Path) -> bool:
    return onnx_metadata(path).get("format", "").startswith(OURS)


def _renamed(stored: dict[str, NDArray[Any]], path: Path) -> dict[str, NDArray[np.float32]]:
    numbers: dict[str, set[int]] = {kind: set() for kind in FIELDS}
    for name in stored:
        kind, number, _ = _split(name)
        numbers[kind].add(number)
    expected = layers()
    seen = {kind: len(found) for kind, found in numbers.items()}
    if seen != {kind: len(prefixes) for kind, prefixes in expected.items()}:
        layers_of = ", ".join(f"{count} {kind}" for kind, count in seen.items())
        wanted = ", ".join(f"{len(prefixes)} {kind}" for kind, prefixes in expected.items())
        if _says_it_was_exported(path):
            raise ForeignNetError(
                f"{path}: was exported by ocr-ray, its BatchNorm folded away: it can be read by, and not trained on or "
                "written anew; expected the file that it was exported from"
            )
        raise ForeignNetError(
            f"{path}: has weights of {layers_of}; only the released PP-OCRv3 detector is known: {wanted}"
        )
    # Counting starts at 0 where the net was the first one that the exporting program made.
    prefixes = {
        (kind, number): prefix
        for kind, found in numbers.items()
        for number, prefix in zip(sorted(found), expected[kind], strict=True)
    }
    renamed = {}
    for name, array in stored.items():
        kind, number, field = _split(name)
        if field not in FIELDS[kind] or array.dtype.kind != "f":
            raise WeightsError(f"{path}: {name} is an array of {array.dtype} that this layer has no place for")
        renamed[f"{prefixes[kind, number]}.{FIELDS[kind][field]}"] = array.astype(np.float32)
    return renamed


def _split(name: str) -> tuple[str, int, str]:
    found = TENSOR.fullmatch(name)
    assert found is not None
    return found[1], int(found[2]), found[3]


def layers() -> dict[str, list[str]]:
    """For each kind the prefixes of PaddleOCR's names, in the order in which its constructors make the layers."""
    made: dict[str, list[str]] = {"conv2d": [], "conv2d_transpose": [], "batch_norm": []}
    for kind, prefix in _constructed():
        made[kind].append(prefix)
    return made


def _constructed() -> Iterator[tuple[str, str]]:
    units = [
        f"stage{stage}.{unit}.{part}"
        for stage, count in enumerate(UNITS_OF_STAGE)
        for unit in range(count)
        for part in ("expand_conv", "bottleneck_conv", "linear_conv")
    ]
    for prefix in ["conv", *units, f"stage3.{UNITS_OF_STAGE[3]}"]:
        yield "conv2d", f"backbone.{prefix}.conv"
        yield "batch_norm", f"backbone.{prefix}.bn"
    for level in range(4):
        for layer in ("ins_conv", "inp_conv"):
            for part in ("in_conv", "se_block.conv1", "se_block.conv2"):
                yield "conv2d", f"neck.{layer}.{level}.{part}"
    yield "conv2d", "head.binarize.conv1"
    yield "batch_norm", "head.binarize.conv_bn1"
    yield "conv2d_transpose", "head.binarize.conv2"
    yield "batch_norm", "head.binarize.conv_bn2"
    yield "conv2d_transpose", "head.binarize.conv3"
