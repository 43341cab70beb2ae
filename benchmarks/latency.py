"""From a JPEG to its text regions: our exported file, PyTorch, and RapidOCR's detector with the same net.

    python -m benchmarks.latency WEIGHTS [--pictures 40] [--longest 960] [--rounds 5] [--json FILE]

WEIGHTS is a detector as `ocr-ray` takes it. RapidOCR runs it as it is where it is an ONNX file (the released student),
else as we export it. All decode by `cv2.imread`, resize to the same size and cut by the thresholds of the weights, so
they have to find the same regions. Needs the extra `gate`.
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.command import run_command
from benchmarks.machine import describe
from benchmarks.pictures import find_pictures
from ocr_ray.data.images import Image, read_image
from ocr_ray.data.resize import ResizeConfig, resize_for_test
from ocr_ray.engine.evaluate import shrink_maps
from ocr_ray.errors import UserError
from ocr_ray.export.settings import rapidocr_settings
from ocr_ray.export.write import export
from ocr_ray.model_card import ModelCard, load_detector
from ocr_ray.models.detector import Detector
from ocr_ray.postprocess import boxes_from_map
from ocr_ray.registry.reader import OnnxReader

STAGES = ("decode", "prepare", "net", "boxes")
TARGET = 0.7
NEAR_PX = 1
"""Two regions are one where no corner lies further off: RapidOCR ends at the last pixel, we at the border behind it."""

Boxes = list[NDArray[Any]]
Stages = tuple[Callable[[Image], Any], Callable[[Any], Any], Callable[[Any, Image], Boxes]]
"""What a side does after decoding: picture to input, input to map, map to regions in the picture's pixels."""


@dataclass(frozen=True)
class Side:
    """A program with a number of threads."""

    name: str
    threads: int
    stages: Stages


@dataclass(frozen=True)
class Timed:
    """What one side took and found."""

    side: Side
    milliseconds: NDArray[np.float64]
    """`(pictures, stages)`, of each the least of all rounds."""
    boxes: list[Boxes]

    @property
    def whole(self) -> float:
        """From file to regions, the mean over the pictures, in ms."""
        return float(self.milliseconds.sum(axis=1).mean())


def main(
    weights: Annotated[Path, typer.Argument(help="the detector, e.g. the released student's .onnx")],
    pictures: Annotated[int, typer.Option(min=1, help="photographs, of OCR_RAY_DATA or ../shared/data")] = 40,
    longest: Annotated[int, typer.Option(help="longest side at which they enter the net, in pixels")] = 960,
    rounds: Annotated[int, typer.Option(min=1, help="over all pictures; the least of each counts")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the figures there")] = None,
) -> None:
    """Whole path and stages, one thread and two."""
    with tempfile.TemporaryDirectory(prefix="ocr_ray_latency_") as folder:
        found = find_pictures(pictures, Path(folder))
        sides = make_sides(weights, longest, Path(folder))
        files = [sample.image for sample in found.samples]
        timed = time_sides(sides, files, rounds)
    caption = f"{found.what}, longest side at most {longest}; ms, mean of the pictures, least of {rounds} rounds; "
    Console(width=110).print(table(timed, caption + describe()))
    for line in agreement(timed):
        print(line)
    if json_file is not None:
        json_file.write_text(json.dumps([plain(each, timed) for each in timed], indent=2) + "\n", encoding="utf-8")


def make_sides(weights: Path, longest: int, folder: Path) -> list[Side]:
    """Each program with one thread, and with two."""
    ours = folder / "ours.onnx"
    export(weights, ours)
    detector, card, _ = load_detector(weights)
    card = replace(card, resize=ResizeConfig(limit_type="max", limit_side_len=longest))
    theirs = weights if weights.suffix == ".onnx" else ours
    sides = []
    for threads in (1, 2):
        sides += [
            Side("our file in onnxruntime", threads, _ours(ours, card, threads)),
            Side("PyTorch", threads, _pytorch(detector.eval(), card)),
            Side("RapidOCR", threads, _rapidocr(theirs, card, threads, arena=False)),
            Side("RapidOCR, memory arena on", threads, _rapidocr(theirs, card, threads, arena=True)),
        ]
    return sides


def _ours(path: Path, card: ModelCard, threads: int) -> Stages:
    reader = OnnxReader(path, threads)
    reader.resize = card.resize

    def boxes(probability: Any, image: Image) -> Boxes:
        return [d.polygon for d in boxes_from_map(probability, reader.postprocess, image.shape[1], image.shape[0])]

    return reader.fed, reader.probability, boxes


def _pytorch(detector: Detector, card: ModelCard) -> Stages:
    def prepare(image: Image) -> Image:
        return resize_for_test(image, card.resize)[0]

    def net(resized: Image) -> NDArray[np.float32]:  # which normalises as well, where the net is
        return shrink_maps(detector, [resized], card.normalize, torch.device("cpu"))[0]

    def boxes(probability: Any, image: Image) -> Boxes:
        return [d.polygon for d in boxes_from_map(probability, card.postprocess, image.shape[1], image.shape[0])]

    return prepare, net, boxes


def _rapidocr(path: Path, card: ModelCard, threads: int, arena: bool) -> Stages:
    """The parts of its `TextDetector`, as its own `__call__` has them one after the other."""
    try:
        from rapidocr import RapidOCR
    except ImportError as e:
        raise UserError("RapidOCR is not installed: pip install 'ocr-ray[gate]'") from e
    keys, _ = rapidocr_settings(path, card)
    keys |= {
        "Global.log_level": "error",
        "EngineConfig.onnxruntime.intra_op_num_threads": threads,
        "EngineConfig.onnxruntime.enable_cpu_mem_arena": arena,
    }
    detector: Any = RapidOCR(params=keys)._load_det_model()  # type: ignore[no-untyped-call]

    def boxes(maps: Any, image: Image) -> Boxes:
        found, _ = detector.postprocess_op(maps, image.shape[:2])
        return list(detector.sorted_boxes(found)) if len(found) else []

    return detector.get_preprocess(), detector.session, boxes


def time_sides(sides: Sequence[Side], files: Sequence[Path], rounds: int) -> list[Timed]:
    """All sides with one picture, then with the next; the first round of all warms up and does not count."""
    least = np.full((len(sides), len(files), len(STAGES)), np.inf)
    boxes: list[list[Boxes]] = [[] for _ in sides]
    for turn in range(rounds + 1):
        for number, file in enumerate(files):
            for i, side in enumerate(sides):
                took, found = _once(side, file)
                if turn:
                    least[i, number] = np.minimum(least[i, number], took)
                else:
                    boxes[i].append(found)
    return [Timed(side, 1000 * least[i], boxes[i]) for i, side in enumerate(sides)]


def _once(side: Side, file: Path) -> tuple[list[float], Boxes]:
    """Seconds of each stage, and what was found."""
    cv2.setNumThreads(side.threads)
    torch.set_num_threads(side.threads)
    prepare, net, boxes = side.stages
    times = [time.perf_counter()]
    image = read_image(file)
    times.append(time.perf_counter())
    given = prepare(image)
    times.append(time.perf_counter())
    answer = net(given)
    times.append(time.perf_counter())
    found = boxes(answer, image)
    times.append(time.perf_counter())
    return list(np.diff(times)), found


def ratio(each: Timed, timed: Sequence[Timed]) -> float:
    """Of the whole path, to RapidOCR's as it is installed, with as many threads."""
    (theirs,) = (t for t in timed if t.side.name == "RapidOCR" and t.side.threads == each.side.threads)
    return each.whole / theirs.whole


def table(timed: Sequence[Timed], caption: str) -> Table:
    """A line for each side."""
    drawn = Table(title="from JPEG to regions", caption=caption, caption_justify="left")
    for heading in ("threads", "program", *STAGES, "whole", f"of RapidOCR's ({TARGET})"):
        drawn.add_column(heading, justify="left" if heading == "program" else "right")
    for each in timed:
        stages = [f"{ms:.1f}" for ms in each.milliseconds.mean(axis=0)]
        share = ratio(each, timed)
        met = (
            ""
            if each.side.name != timed[0].side.name
            else f" (target {TARGET}: {'met' if share <= TARGET else 'missed'})"
        )
        whole = f"{each.whole:.1f}"
        drawn.add_row(str(each.side.threads), each.side.name, *stages, whole, f"{share:.2f}{met}")
    return drawn


def agreement(timed: Sequence[Timed]) -> list[str]:
    """How far each side's regions are those of the first, in words."""
    first, *others = timed
    total = sum(len(found) for found in first.boxes)
    lines = []
    for other in others:
        same = sum(_same(a, b) for a, b in zip(first.boxes, other.boxes, strict=True))
        found = sum(len(boxes) for boxes in other.boxes)
        name = f"{other.side.name}, threads {other.side.threads}"
        lines.append(f"{name}: {found} regions, {same} of the {total} of our file within {NEAR_PX} pixel")
    return lines


def _same(ours: Boxes, theirs: Boxes) -> int:
    """How many of ours have one of theirs at the same place, each taken once; corners in any order."""
    left = [_corners(box) for box in theirs]
    count = 0
    for box in map(_corners, ours):
        near = [i for i, other in enumerate(left) if np.abs(box - other).max() <= NEAR_PX]
        if near:
            del left[near[0]]
            count += 1
    return count


def _corners(box: NDArray[Any]) -> NDArray[np.float64]:
    points = np.asarray(box, np.float64)
    around = np.arctan2(*(points - points.mean(axis=0)).T[::-1])
    turned = points[np.argsort(around)]
    start = int(np.argmin(turned.sum(axis=1)))
    return np.roll(turned, -start, axis=0)


def plain(each: Timed, timed: Sequence[Timed]) -> Mapping[str, object]:
    """As JSON has it."""
    stages = dict(zip(STAGES, each.milliseconds.mean(axis=0).round(2).tolist(), strict=True))
    return {
        "program": each.side.name,
        "threads": each.side.threads,
        "ms": {**stages, "whole": round(each.whole, 2)},
        "of_rapidocr": round(ratio(each, timed), 3),
        "how": describe(),
    }


if __name__ == "__main__":
    run_command(main)
