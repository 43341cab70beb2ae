"""What an evaluation counted on each picture, kept beside the weights, so that runs can be compared picture by picture.

The file is JSON with a list for each column, in the order of the set: `index`, `name`, `matched`, `ground_truth`,
`detected`; and what they belong to.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocr_ray.errors import RunError, in_one_line
from ocr_ray.files import write_text

PER_IMAGE_FILE = "per_image.json"
COLUMNS = ("index", "name", "matched", "ground_truth", "detected")


@dataclass(frozen=True)
class ImageCounts:
    """One picture's counts, as `metrics.MatchCounts` has them."""

    index: int
    """Its place in the evaluated set, from 0: two pictures of two label files may have one name."""
    name: str
    """As its label file has it."""
    matched: int
    ground_truth: int
    detected: int


def write_per_image(path: Path, counts: Sequence[ImageCounts], about: Mapping[str, Any]) -> None:
    """Writes the file whole or not at all. `about` says what was evaluated, e.g. the epoch."""
    columns = {column: [getattr(picture, column) for picture in counts] for column in COLUMNS}
    write_text(path, json.dumps({**about, **columns}) + "\n")


def read_per_image(path: Path) -> tuple[ImageCounts, ...]:
    """What `write_per_image` wrote. Raises: RunError when the file is not there or is none of these."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        return tuple(ImageCounts(*row) for row in zip(*(read[column] for column in COLUMNS), strict=True))
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise RunError(f"{path}: no counts by picture can be read: {in_one_line(e)}") from e


def aligned(runs: Sequence[Sequence[ImageCounts]]) -> list[NDArray[np.int64]]:
    """Counts `(N, 3)` of each run, as `evidence` takes them, over the N pictures that all runs could read.

    Raises: RunError when two runs call a picture differently or label it differently: they saw other sets.
    """
    found = [{picture.index: picture for picture in run} for run in runs]
    common = [index for index in found[0] if all(index in run for run in found)] if found else []
    for index in common:
        one = found[0][index]
        for run in found[1:]:
            if (run[index].name, run[index].ground_truth) != (one.name, one.ground_truth):
                raise RunError(
                    f"runs were evaluated on other sets: picture {index} is {one.name} with {one.ground_truth} regions "
                    f"in one, {run[index].name} with {run[index].ground_truth} in another"
                )
    return [
        np.array([(p.matched, p.ground_truth, p.detected) for p in map(run.__getitem__, common)], np.int64).reshape(
            -1, 3
        )
        for run in found
    ]
