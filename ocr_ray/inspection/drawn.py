"""A picture with errors, drawn for a page: what is labelled, what was found, the map, and the errors enlarged."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ocr_ray.data.images import Image, read_image
from ocr_ray.inspection.errors import Fate
from ocr_ray.inspection.look import SeenImage
from ocr_ray.report.blocks import Pictures
from ocr_ray.report.pictures import as_picture
from ocr_ray.visualize import (
    IGNORED,
    LABELLED,
    PREDICTED,
    WRONG,
    Colour,
    Mark,
    contact_sheet,
    draw_map,
    draw_marks,
    within,
)

LONGEST_PX = 720
COLUMNS = 3
ENLARGED = 9
"""Cells at most."""
CELL_PX = (240, 150)
GAP_PX = 3
LEAST_WINDOW_PX = 96
"""Width of what a cell shows, so that a speck is seen with what lies around it."""
LEGEND = (
    "Blue: labelled. Orange: found. Magenta with a word: an error and its kind. Grey: left out, labelled as not to be "
    "read or a detection in such a region."
)


def drawn(seen: SeenImage) -> Pictures:
    """Raises: DataError when the picture cannot be read any more."""
    result, errors = seen.result, seen.errors
    sample = result.sample
    whole = read_image(sample.image)
    image, scale = within(whole, LONGEST_PX)
    detections = [d.polygon for d in result.detections]
    labelled = _marks(sample.polygons, errors.regions, LABELLED, WRONG)
    found = _marks(detections, errors.detections, PREDICTED, WRONG)
    # Enlarged, both lie on one picture and keep their colours.
    both = [
        *_marks(sample.polygons, errors.regions, LABELLED, LABELLED),
        *_marks(detections, errors.detections, PREDICTED, PREDICTED),
    ]
    counts = result.counts
    height, width = image.shape[:2]
    pictures = [
        as_picture(_with_marks(image, labelled, scale), f"labelled: {counts.matched} of {counts.ground_truth} found"),
        as_picture(_with_marks(image, found, scale), f"found: {counts.detected - counts.matched} wrong"),
        as_picture(draw_map(result.probability, width, height), "probability map"),
        as_picture(_enlarged(whole, both), "errors, enlarged"),
    ]
    return Pictures(f"{sample.name or sample.image.name}: {errors.in_words()}", tuple(pictures))


def _marks(polygons: Sequence[ArrayLike], fates: Sequence[Fate | None], colour: Colour, wrong: Colour) -> list[Mark]:
    """Those that are in order first, so that errors lie on top."""
    marks = [
        Mark(polygon, IGNORED)
        if fate is None
        else Mark(polygon, colour)
        if fate == "matched"
        else Mark(polygon, wrong, fate)
        for polygon, fate in zip(polygons, fates, strict=True)
    ]
    return sorted(marks, key=lambda mark: bool(mark.word))


def _with_marks(image: Image, marks: Sequence[Mark], scale: float, left: float = 0, top: float = 0) -> Image:
    moved = [Mark((np.asarray(m.polygon, np.float64) - (left, top)) * scale, m.colour, m.word) for m in marks]
    return draw_marks(image, moved)


def _enlarged(image: Image, marks: Sequence[Mark]) -> Image:
    """A cell for each error, with all outlines around it; one that an earlier cell shows has none of its own."""
    windows: list[NDArray[np.int64]] = []
    for mark in marks:
        if mark.word and len(windows) < ENLARGED:
            window = _window(mark.polygon, *image.shape[:2])
            if not any((old[:2] <= window[:2]).all() and (old[2:] >= window[2:]).all() for old in windows):
                windows.append(window)
    cells = []
    for x0, y0, x1, y1 in (window.tolist() for window in windows):
        scale = CELL_PX[0] / (x1 - x0)
        shown = cv2.resize(image[y0:y1, x0:x1], CELL_PX, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
        cell = _with_marks(shown, marks, scale, x0, y0)
        cell[:, -GAP_PX:] = cell[-GAP_PX:] = 255
        cells.append(cell)
    return contact_sheet(cells, COLUMNS, CELL_PX[0])


def _window(polygon: ArrayLike, height: int, width: int) -> NDArray[np.int64]:
    """Left, top, right, bottom of what a cell shows: the polygon with a margin, in the cell's proportions."""
    points = np.asarray(polygon, np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    proportion = CELL_PX[1] / CELL_PX[0]
    wide = max(1.5 * (high[0] - low[0]), 1.5 * (high[1] - low[1]) / proportion, LEAST_WINDOW_PX)
    wide = min(wide, width, height / proportion)
    size = np.array([wide, wide * proportion])
    corner = np.clip((low + high) / 2 - size / 2, 0, np.maximum((width, height) - size, 0))
    left, top = corner.astype(np.int64)
    right, bottom = np.maximum((corner + size).astype(np.int64), (left + 1, top + 1))
    return np.array([left, top, min(right, width), min(bottom, height)])
