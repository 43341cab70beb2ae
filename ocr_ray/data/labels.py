"""PaddleOCR label files: one image a line, `relative path<TAB>[{"transcription": ..., "points": [[x, y], ...]}, ...]`.

UTF-8, with or without a byte order mark, lines ended by LF or CRLF, blank lines skipped.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ocr_ray.errors import ConfigError, DataError
from ocr_ray.files import inside

IGNORED_TEXTS = ("###", "*")
"""Transcriptions of text that nobody can read: neither hit nor miss."""
MIN_POINTS = 4
MAX_COORDINATE = 2.0**20
"""OpenCV reads no image wider or higher than this; coordinates beyond it are a broken file."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with its text regions.

    `polygons` are M arrays `(K, 2)` float32 in pixels of the image as OpenCV shows it (EXIF rotation applied);
    `ignore` is `(M,)` bool; `texts` are the M transcriptions. M may be 0: an image without text.
    `name` is the path as the label file has it.
    """

    image: Path
    polygons: tuple[NDArray[np.float32], ...]
    ignore: NDArray[np.bool_]
    texts: tuple[str, ...]
    name: str = ""


def read_labels(file: Path, root: Path | None = None) -> list[Sample]:
    """All samples of a label file, in its order. Image files are not looked at.

    Args: image paths lie relative to `root`, by default the label file's own folder.
    Raises: DataError with `file:line:` for the first line that is wrong, or when the file cannot be read or is empty.
    """
    folder = file.parent if root is None else root
    samples = [parse_line(line, folder, f"{file}:{number}") for number, line in label_lines(file)]
    if not samples:
        raise DataError(f"{file}: holds no label line")
    return samples


def read_label_files(
    files: Sequence[Path], ratios: Sequence[float] = (), root: Path | None = None, seed: int = 0
) -> list[Sample]:
    """The samples of several label files, one after another.

    Args: of file i, `round(len * ratios[i])` samples are kept, drawn from (seed, i) alone and left in file order;
        without ratios all are. The reference draws anew each epoch, here the choice holds for the run.
    Raises: ConfigError when the ratios do not fit the files or lie outside (0, 1]; DataError as `read_labels`, or when
        a ratio leaves nothing of a file.
    """
    if ratios and len(ratios) != len(files):
        raise ConfigError(f"ratios: {len(ratios)} given for {len(files)} label files, expected one each")
    chosen: list[Sample] = []
    for i, file in enumerate(files):
        ratio = ratios[i] if ratios else 1.0
        if not 0 < ratio <= 1:
            raise ConfigError(f"ratios: {ratio} for {file}, expected a number in (0, 1]")
        samples = read_labels(file, root)
        keep = round(len(samples) * ratio)
        if keep == 0:
            raise DataError(f"{file}: ratio {ratio} keeps none of its {len(samples)} samples")
        drawn = np.random.default_rng((seed, i)).permutation(len(samples))[:keep]
        chosen.extend(samples[j] for j in sorted(drawn))
    return chosen


def label_lines(file: Path) -> list[tuple[int, bytes]]:
    """Line numbers (from 1) and bytes of the lines that are not blank. Raises: DataError when unreadable."""
    try:
        data = file.read_bytes()
    except OSError as e:
        raise DataError(f"{file}: cannot be read: {e.strerror}") from e
    data = data.removeprefix(b"\xef\xbb\xbf")
    # Not splitlines(): a transcription may hold other characters that Unicode counts as line ends.
    return [(i, line.rstrip(b"\r")) for i, line in enumerate(data.split(b"\n"), start=1) if line.strip()]


def parse_line(line: bytes, root: Path, source: str) -> Sample:
    """One line to a `Sample`. Raises: DataError that starts with `source` (file and line number)."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as e:
        raise DataError(f"{source}: not UTF-8 at byte {e.start + 1} of the line") from e
    name, tab, rest = text.partition("\t")
    if not tab:
        raise DataError(f"{source}: no tab between path and labels")
    image = _image_path(name, root, source)
    try:
        boxes = json.loads(rest.split("\t")[0])
    except json.JSONDecodeError as e:
        raise DataError(f"{source}: labels are not JSON: {e.msg} at character {len(name) + 2 + e.pos}") from e
    except (RecursionError, ValueError) as e:  # nested too deep; an integer of thousands of digits
        raise DataError(f"{source}: labels are not JSON that can be read: {e}") from e
    if not isinstance(boxes, list):
        raise DataError(f"{source}: labels are {_kind(boxes)}, expected a list of boxes")
    parsed = [_box(box, i, source) for i, box in enumerate(boxes, start=1)]
    texts = tuple(text for _, text in parsed)
    return Sample(
        image=image,
        polygons=tuple(polygon for polygon, _ in parsed),
        ignore=np.array([text in IGNORED_TEXTS for text in texts], np.bool_),
        texts=texts,
        name=name,
    )


def format_line(relative_path: str, polygons: Sequence[ArrayLike], texts: Sequence[str]) -> str:
    """A label line without its line end; whole coordinates are written as integers, others to a hundredth.

    Raises: ValueError when polygons and texts differ in number; DataError for a path no label line can hold.
    """
    if any(c in relative_path for c in "\t\n\r\0"):
        raise DataError(f"{relative_path!r}: a path with a tab or a line end cannot stand in a label file")
    boxes = [
        {"transcription": text, "points": [[_number(x), _number(y)] for x, y in np.asarray(polygon, np.float64)]}
        for polygon, text in zip(polygons, texts, strict=True)
    ]
    labels = json.dumps(boxes, ensure_ascii=False)
    if not labels.isascii() and any("\ud800" <= c <= "\udfff" for c in labels):
        labels = json.dumps(boxes)  # half a surrogate pair has no UTF-8 form, only an escaped one
    return f"{relative_path}\t{labels}"


def data_digest(samples: Sequence[Sample]) -> str:
    """SHA-256 over names and labels in order, in hexadecimal; image bytes and the folder's place do not enter."""
    digest = hashlib.sha256()
    for sample in samples:
        line = format_line(sample.name or sample.image.name, sample.polygons, sample.texts)
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _image_path(name: str, root: Path, source: str) -> Path:
    if not name.strip():
        raise DataError(f"{source}: the path is empty")
    if "\0" in name:
        raise DataError(f"{source}: the path holds a NUL byte")
    if name.startswith("["):
        try:
            several = isinstance(json.loads(name), list)
        except ValueError:
            several = False
        if several:
            raise DataError(f"{source}: a list of paths is not supported, expected one path a line")
    return inside(root, name, source)


def _box(box: Any, number: int, source: str) -> tuple[NDArray[np.float32], str]:
    if not isinstance(box, dict):
        raise DataError(f"{source}: box {number} is {_kind(box)}, expected an object")
    for key in ("transcription", "points"):
        if key not in box:
            raise DataError(f"{source}: box {number} has no {key!r}")
    text, points = box["transcription"], box["points"]
    if not isinstance(text, str):
        raise DataError(f"{source}: transcription of box {number} is {_kind(text)}, expected a text")
    if not isinstance(points, list):
        raise DataError(f"{source}: points of box {number} are {_kind(points)}, expected a list of [x, y]")
    if len(points) < MIN_POINTS:
        raise DataError(f"{source}: polygon {number} has {len(points)} points, expected at least {MIN_POINTS}")
    for i, point in enumerate(points, start=1):
        if not (isinstance(point, list) and len(point) == 2 and all(_is_coordinate(c) for c in point)):
            raise DataError(
                f"{source}: point {i} of polygon {number} is {_shortened(point)}, expected [x, y] in pixels"
            )
    return np.array(points, np.float32), text


def _is_coordinate(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= MAX_COORDINATE and not math.isnan(value)


def _number(value: float) -> int | float:
    return int(value) if value.is_integer() else round(value, 2)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _shortened(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
