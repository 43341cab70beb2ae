"""A file of weights put to use: evaluated on labelled pictures, or finding text in any."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ocr_ray.data.images import Image, read_image, write_image
from ocr_ray.data.labels import Sample, format_line, read_labels
from ocr_ray.data.resize import ResizeConfig, resize_for_test
from ocr_ray.engine.evaluate import EvalConfig, Evaluation, ImageResult, evaluate, shrink_maps
from ocr_ray.errors import DataError, UserError
from ocr_ray.files import write_text
from ocr_ray.model_card import ModelCard, load_for_use
from ocr_ray.models.detector import Detector
from ocr_ray.models.onnx_detector import OnnxDetector
from ocr_ray.postprocess import boxes_from_map
from ocr_ray.typed import with_values
from ocr_ray.visualize import draw_regions, side_by_side
from ocr_ray.weights.coverage import coverage_table

LABELS = "predictions.txt"
SUFFIX = ".text.jpg"  # of an overlay, after the picture's own name without its suffix


@dataclass(frozen=True)
class Predictions:
    """What `predict` wrote."""

    labels: Path
    """A label line for each picture, in PaddleOCR's format, with empty transcriptions."""
    root: Path
    """The folder to which the paths in `labels` are relative: the nearest that holds all pictures."""
    overlays: tuple[Path, ...]
    """In the order of the pictures: regions drawn, and beside them the probability map."""
    regions: int
    """Found in all pictures together."""

    def __str__(self) -> str:
        return (
            f"{self.regions} regions in {len(self.overlays)} pictures  {self.labels} (paths from {self.root})  "
            f"{self.overlays[0].parent}/*{SUFFIX}"
        )


def evaluate_file(
    weights: Path,
    labels: Path,
    root: Path | None = None,
    model: str | None = None,
    limit_side_len: int | None = None,
    limit_type: str | None = None,
    progress: bool = True,
) -> Evaluation:
    """Precision, recall and hmean of a file of weights on a label file.

    Resize rule, normalisation and thresholds are those that travel with the weights, else the reference's for
    evaluation; `limit_side_len` and `limit_type` replace the rule. Says on standard error what was loaded and, with
    `progress`, how far it is.

    Raises: DataError for labels or pictures that cannot be read, WeightsError for the weights, ConfigError for the
        rule.
    """
    samples = read_labels(labels, root)
    detector, card = _load(weights, model)
    limits = {"limit_side_len": limit_side_len, "limit_type": limit_type}
    given = {key: value for key, value in limits.items() if value is not None}
    # A fixed size in the card would otherwise outrank the limit that was asked for.
    resize = card.resize if not given or card.resize.image_shape is None else ResizeConfig()
    cfg = EvalConfig(resize=with_values(resize, given, "command line"), postprocess=card.postprocess)
    device = _device()
    with _progress_bar(progress) as bar:
        task = bar.add_task("evaluating", total=len(samples))
        return evaluate(detector.to(device), samples, card.normalize, cfg, device, on_image=lambda _: bar.advance(task))


def examine(
    weights: Path,
    samples: Sequence[Sample],
    model: str | None,
    watch: Callable[[ModelCard], Callable[[ImageResult], None]],
) -> tuple[ModelCard, Evaluation]:
    """Evaluates a file of weights by what travels with it, and shows each picture's result to what `watch` makes of its
    card. Raises: as `evaluate_file`."""
    detector, card = _load(weights, model)
    cfg = EvalConfig(resize=card.resize, postprocess=card.postprocess)
    device, see = _device(), watch(card)
    with _progress_bar(True) as bar:
        task = bar.add_task("looking", total=len(samples))

        def on_image(result: ImageResult) -> None:
            see(result)
            bar.advance(task)

        return card, evaluate(detector.to(device), samples, card.normalize, cfg, device, on_image=on_image)


def predict(weights: Path, images: Sequence[Path], out: Path, model: str | None = None) -> Predictions:
    """Finds text in pictures: `out/NAME.text.jpg` for each of them and one label file, `out/predictions.txt`.

    Each picture is read once before anything is written, so that a wrong path costs nothing.
    Raises: DataError for a picture that cannot be read, WeightsError for the weights, UserError when `out` is no
        folder that can be written to.
    """
    if not images:
        raise DataError("predict: expected at least one picture")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file, expected a folder")
    absolute = [_absolute(path) for path in images]
    root = Path(os.path.commonpath([path.parent for path in absolute]))
    overlays = _overlay_paths(absolute, out)
    detector, card = _load(weights, model)
    for path in images:
        resize_for_test(read_image(path), card.resize, str(path))
    device = _device()
    detector.to(device)
    lines, regions = [], 0
    with _progress_bar(True) as bar:
        for path, overlay in bar.track(list(zip(absolute, overlays, strict=True)), description="predicting"):
            polygons, drawn = _predict_one(detector, card, read_image(path), device)
            write_image(overlay, drawn)
            lines.append(format_line(path.relative_to(root).as_posix(), polygons, [""] * len(polygons)) + "\n")
            regions += len(polygons)
    write_text(out / LABELS, "".join(lines))
    return Predictions(out / LABELS, root, tuple(overlays), regions)


def _predict_one(
    detector: Detector | OnnxDetector, card: ModelCard, image: Image, device: torch.device
) -> tuple[list[NDArray[np.int32]], Image]:
    height, width = image.shape[:2]
    resized, _ = resize_for_test(image, card.resize)
    probability = shrink_maps(detector, [resized], card.normalize, device)[0]
    polygons = [d.polygon for d in boxes_from_map(probability, card.postprocess, width, height)]
    return polygons, side_by_side(draw_regions(image, polygons), probability)


def _load(weights: Path, model: str | None) -> tuple[Detector | OnnxDetector, ModelCard]:
    detector, card, coverage = load_for_use(weights, model)
    if coverage is not None:
        Console(stderr=True).print(coverage_table([coverage]))
    return detector, card


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - unlike resolve() it leaves links as they were named


def _overlay_paths(images: Sequence[Path], out: Path) -> list[Path]:
    """One name each: pictures of the same name from different folders get a number."""
    paths: list[Path] = []
    for image in images:
        path, number = out / f"{image.stem}{SUFFIX}", 2
        while path in paths:
            path, number = out / f"{image.stem}.{number}{SUFFIX}", number + 1
        if _absolute(path) in images:
            raise DataError(f"{path}: is one of the pictures and would be overwritten, expected another --out")
        paths.append(path)
    return paths


def _progress_bar(visible: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not visible or not sys.stderr.isatty(),
    )
