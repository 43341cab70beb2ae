"""Pictures for people: outlines of text regions, the probability map in colours, many pictures on one sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ocr_ray.data.images import Image

Colour = tuple[int, int, int]  # B, G, R
PREDICTED: Colour = (0, 140, 255)  # orange
LABELLED: Colour = (255, 190, 0)  # blue; told apart from orange with any colour vision
IGNORED: Colour = (200, 200, 200)
UNDER: Colour = (0, 0, 0)
WRONG: Colour = (255, 80, 255)  # magenta; a word beside it says what is wrong
LINE_AT_PX = 500  # a picture's shorter side per pixel of line width


@dataclass(frozen=True, eq=False)
class Mark:
    """An outline to draw, and a word to write at its upper left."""

    polygon: ArrayLike
    colour: Colour
    word: str = ""


def draw_marks(image: Image, marks: Sequence[Mark]) -> Image:
    """A copy of `image` with outlines as in `draw_regions`, and ASCII words in magenta on black over all of them.

    A word that would lie on another one is left out, as is one whose polygon has its middle outside the picture.
    """
    canvas = image.copy()
    width = _line_width(image)
    for mark in marks:
        _outline(canvas, mark.polygon, mark.colour, width)
    taken = np.zeros(image.shape[:2], np.bool_)
    for mark in marks:
        if mark.word:
            _write(canvas, mark, width, taken)
    return canvas


def draw_regions(
    image: Image,
    predicted: Sequence[ArrayLike],
    labelled: Sequence[ArrayLike] = (),
    ignore: Sequence[bool] | NDArray[np.bool_] = (),
) -> Image:
    """A copy of `image` with predicted outlines in orange, labelled ones in blue, ignored ones thin and grey.

    Each line lies on a wider black one, so that it can be seen on any background. Polygons `(K, 2)` in pixels of the
    image; `ignore` has one entry per labelled polygon, or none at all.
    """
    canvas = image.copy()
    width = _line_width(image)
    skipped = list(ignore) if len(ignore) else [False] * len(labelled)
    for polygon, is_ignored in zip(labelled, skipped, strict=True):
        _outline(canvas, polygon, IGNORED if is_ignored else LABELLED, 1 if is_ignored else width)
    for polygon in predicted:
        _outline(canvas, polygon, PREDICTED, width)
    return canvas


def draw_map(probability: NDArray[np.float32], width: int, height: int) -> Image:
    """A probability map `(H, W)` as a picture of `width` by `height`: black at 0, over red, to pale yellow at 1."""
    levels = np.rint(255 * np.clip(np.nan_to_num(probability), 0, 1)).astype(np.uint8)
    return cast(Image, cv2.applyColorMap(cv2.resize(levels, (width, height)), cv2.COLORMAP_INFERNO))


def side_by_side(drawn: Image, probability: NDArray[np.float32]) -> Image:
    """A drawn picture and, to its right, the map that the regions came from, in the same size."""
    height, width = drawn.shape[:2]
    return np.hstack([drawn, draw_map(probability, width, height)])


def within(image: Image, longest_side: int) -> tuple[Image, float]:
    """`image` reduced to a longest side of so many pixels, and by what factor; a smaller one is left as it is."""
    scale = longest_side / max(image.shape[:2])
    if scale >= 1:
        return image, 1.0
    reduced = _to_width(image, max(round(image.shape[1] * scale), 1))
    return reduced, reduced.shape[1] / image.shape[1]


def contact_sheet(images: Sequence[Image], columns: int, cell_width: int) -> Image:
    """Pictures in rows of `columns`, each reduced or enlarged to `cell_width` pixels; cells are as high as the highest.

    Raises: ValueError when there is no picture.
    """
    if not images:
        raise ValueError("contact_sheet: expected at least one picture")
    cells = [_to_width(image, cell_width) for image in images]
    cell_height = max(cell.shape[0] for cell in cells)
    rows = -(-len(cells) // columns)
    sheet = np.full((rows * cell_height, min(columns, len(cells)) * cell_width, 3), 255, np.uint8)
    for i, cell in enumerate(cells):
        y, x = i // columns * cell_height, i % columns * cell_width
        sheet[y : y + cell.shape[0], x : x + cell_width] = cell
    return sheet


def _line_width(image: Image) -> int:
    return max(round(min(image.shape[:2]) / LINE_AT_PX), 1)


def _write(canvas: Image, mark: Mark, width: int, taken: NDArray[np.bool_]) -> None:
    """Above the polygon, or else below it; `taken` `(H, W)` says where words are."""
    points = np.asarray(mark.polygon, np.float64)
    middle = points.mean(axis=0)
    if not np.isfinite(middle).all() or (middle < 0).any() or (middle >= (canvas.shape[1], canvas.shape[0])).any():
        return
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.45 * width
    (text_width, text_height), below = cv2.getTextSize(mark.word, font, scale, width)
    height = text_height + below
    left = int(np.clip(points[:, 0].min(), 0, max(canvas.shape[1] - text_width, 0)))
    for y in (points[:, 1].min() - height - 1, points[:, 1].max() + 2):
        top = int(np.clip(y, 0, max(canvas.shape[0] - height, 0)))
        place = taken[top : top + height + 1, left : left + text_width + 1]
        if not place.any():
            place[:] = True
            cv2.rectangle(canvas, (left, top), (left + text_width, top + height), UNDER, cv2.FILLED)
            cv2.putText(canvas, mark.word, (left, top + text_height), font, scale, WRONG, width, cv2.LINE_AA)
            return


def _outline(canvas: Image, polygon: ArrayLike, colour: Colour, width: int) -> None:
    points = np.asarray(polygon, np.float64)
    if not np.isfinite(points).all():
        return
    # Far outside the picture nothing shows, and OpenCV's fixed-point coordinates would overflow.
    corners = [np.rint(np.clip(points, -1e4, 1e4 + max(canvas.shape))).astype(np.int32)]
    cv2.polylines(canvas, corners, True, UNDER, width + 2, cv2.LINE_AA)
    cv2.polylines(canvas, corners, True, colour, width, cv2.LINE_AA)


def _to_width(image: Image, width: int) -> Image:
    height = max(round(image.shape[0] * width / image.shape[1]), 1)
    smooth = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
    return cast(Image, cv2.resize(image, (width, height), interpolation=smooth))
