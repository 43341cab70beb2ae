"""The official folders of ICDAR2015 (challenge 4, incidental scene text) to a label file."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocr_ray.data.labels import IGNORED_TEXTS, MAX_COORDINATE, format_line
from ocr_ray.errors import DataError
from ocr_ray.files import write_text

_SUFFIXES = (".jpg", ".png", ".jpeg")
_MARKS = ("\ufeff", "\u00ef\u00bb\u00bf")  # the byte order mark, and the same read as Latin-1 and written once more


@dataclass(frozen=True)
class Conversion:
    """What was written to `out`."""

    out: Path
    images: int
    boxes: int
    ignored: int

    def __str__(self) -> str:
        return f"{self.out}: {self.images} images, {self.boxes} boxes, {self.ignored} of them ignored"


def convert_icdar2015(images: Path, gt: Path, out: Path) -> Conversion:
    """Writes the label file `out` from `gt_img_N.txt` files and their `img_N.jpg`, in the order of N.

    Each line of a ground-truth file is `x1,y1,...,x4,y4,text`: four points clockwise from the top left, then the text,
    which keeps its commas (PaddleOCR's own converter cuts it at the first). A byte order mark is taken off, a file
    without lines makes an image without text.

    Raises: DataError for a folder that is not there or holds nothing fitting, an image or a ground truth without its
        counterpart, a line of another form (with file and line number), and for images that do not lie below the folder
        of `out`, since a label file names them relative to itself.
    """
    truths = {path.stem.removeprefix("gt_"): path for path in _listed(gt) if path.name.endswith(".txt")}
    pictures = {path.stem: path for path in _listed(images) if path.suffix.lower() in _SUFFIXES}
    if not truths:
        raise DataError(f"{gt}: holds no gt_img_N.txt")
    for name in sorted(truths.keys() - pictures.keys(), key=_natural):
        raise DataError(f"{truths[name]}: there is no {name}{_SUFFIXES[0]} in {images}")
    for name in sorted(pictures.keys() - truths.keys(), key=_natural):
        raise DataError(f"{pictures[name]}: there is no gt_{name}.txt in {gt}")
    lines: list[str] = []
    boxes = ignored = 0
    for name in sorted(truths, key=_natural):
        polygons, texts = _read_truth(truths[name])
        lines.append(format_line(_relative(pictures[name], out.parent), polygons, texts))
        boxes += len(texts)
        ignored += sum(text in IGNORED_TEXTS for text in texts)
    write_text(out, "".join(f"{line}\n" for line in lines))
    return Conversion(out, len(lines), boxes, ignored)


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as e:
        raise DataError(f"{folder}: cannot be read as a folder: {e.strerror}") from e


def _relative(image: Path, folder: Path) -> str:
    try:
        return image.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError as e:
        raise DataError(f"{image}: does not lie below {folder}, where the label file is to be") from e


def _read_truth(path: Path) -> tuple[list[NDArray[np.float64]], list[str]]:
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise DataError(f"{path}: not UTF-8 at byte {e.start + 1}") from e
    for mark in _MARKS:
        text = text.removeprefix(mark)
    polygons: list[NDArray[np.float64]] = []
    texts: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line.strip():
            continue
        fields = line.split(",", 8)
        if len(fields) < 9:
            raise DataError(f"{path}:{number}: {len(fields)} fields, expected 8 coordinates and a text")
        try:
            coordinates = np.array([float(field) for field in fields[:8]])
        except ValueError as e:
            raise DataError(f"{path}:{number}: expected 8 coordinates and a text, found {line[:60]!r}") from e
        if not (np.abs(coordinates) <= MAX_COORDINATE).all():  # not true of NaN either
            raise DataError(f"{path}:{number}: coordinates beyond {MAX_COORDINATE:.0f} pixels")
        polygons.append(coordinates.reshape(4, 2))
        texts.append(fields[8])
    return polygons, texts


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts img_2 before img_10."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"([0-9]+)", name)]
