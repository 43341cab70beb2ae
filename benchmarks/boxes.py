"""Post-processing of 300 boxes against one `imread`, and the metric on 300 against 300."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.rows import Bench, Row, Subject
from benchmarks.timing import alternate
from ocr_ray.geometry import affine
from ocr_ray.metrics import match
from ocr_ray.postprocess import PostprocessConfig, boxes_from_map

SIDE = 960
COLUMNS, ROWS = 15, 20
REFERENCE_METRIC_S = 10.3
"""300 against 300 in the reference's metric, which is not in its wheel: measured before on a like processor."""


def rows(bench: Bench) -> list[Row]:
    """Two rows."""
    rounds = 5 if bench.quick else 15
    probability = probability_map(kernels(SIDE, np.random.default_rng(1)))
    files = [str(s.image) for s in bench.pictures.samples[:20]]
    cfg = PostprocessConfig()
    reference = bench.reference
    found = len(boxes_from_map(probability, cfg, SIDE, SIDE))
    sides: dict[str, Callable[[int], object]] = {
        "imread": lambda key: cv2.imread(files[key]),
        "ours": lambda key: boxes_from_map(probability, cfg, SIDE, SIDE),
    }
    if reference is not None:
        sides["reference"] = lambda key: reference.boxes(probability)
    seconds = {name: float(each.mean()) for name, each in alternate(sides, len(files), rounds).items()}
    return [
        Row(
            "post-processing of 300 boxes on 960x960",
            seconds["ours"] / seconds["imread"],
            5.0,
            "x imread",
            f"{found} boxes found, mean over {len(files)} files, CPU time, least of {rounds} alternating rounds; "
            f"ours {1000 * seconds['ours']:.1f} ms",
            seconds["reference"] / seconds["imread"] if reference is not None else None,
        ).with_reason("by the profile 30 us a box in seven calls of OpenCV and pyclipper and arrays between"),
        _metric(rounds),
    ]


def kernels(side: int, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """300 turned quads on a grid, none touching another, nor another's grown box."""
    quads = []
    cell_width, cell_height = side / COLUMNS, side / ROWS
    for row in range(ROWS):
        for column in range(COLUMNS):
            w, h = cell_width * rng.uniform(0.5, 0.7), cell_height * rng.uniform(0.25, 0.4)
            corners = affine.apply(affine.rotation(rng.uniform(-10, 10), w, h), [(0, 0), (w, 0), (w, h), (0, h)])
            quads.append(corners - (w / 2, h / 2) + ((column + 0.5) * cell_width, (row + 0.5) * cell_height))
    return quads


def probability_map(quads: list[NDArray[np.float64]]) -> NDArray[np.float32]:
    """0.9 within the quads, 0.05 elsewhere, with soft edges, `(960, 960)`."""
    drawn = np.full((SIDE, SIDE), 0.05, np.float32)
    cv2.fillPoly(drawn, [np.rint(q).astype(np.int32) for q in quads], 0.9)
    return np.asarray(cv2.GaussianBlur(drawn, (3, 3), 0), np.float32)


def _metric(rounds: int) -> Row:
    rng = np.random.default_rng(2)
    truth = [np.rint(q) for q in kernels(SIDE, rng)]
    detected = [np.rint(q + rng.normal(0, 2, (1, 2))) for q in truth]
    ignore = rng.random(len(truth)) < 0.2
    matched = match(truth, ignore, detected).matched
    seconds = alternate({"ours": lambda key: match(truth, ignore, detected)}, 1, 5 * rounds)["ours"][0]
    return Row(
        "metric, 300 boxes against 300",
        float(seconds),
        REFERENCE_METRIC_S / 100,
        "s",
        f"{matched} matched, 60 or so ignored; CPU time, least of {5 * rounds}; the reference's {REFERENCE_METRIC_S} s "
        "was measured before, its wheel holds no metric",
    )


SUBJECT = Subject("boxes", rows)
