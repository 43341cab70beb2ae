"""Training samples as the net gets them: augmented pictures with their target maps, on one sheet or one page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_ray.config import CMLConfig, RecipeConfig, load_config, override
from ocr_ray.data.augment import Augmentation
from ocr_ray.data.batch import Item
from ocr_ray.data.dataset import DrawnSample, TrainDataset, TrainSampler
from ocr_ray.data.images import Image, write_image
from ocr_ray.errors import DataError
from ocr_ray.files import write_text
from ocr_ray.recipes import read_train
from ocr_ray.report.blocks import Headline, Page, Pictures, Section
from ocr_ray.report.html import rendered
from ocr_ray.report.page import written
from ocr_ray.report.pictures import as_picture
from ocr_ray.typed import with_values
from ocr_ray.visualize import IGNORED, LABELLED, PREDICTED, WRONG, Colour, Mark, contact_sheet, draw_marks, within

SUFFIXES = (".jpg", ".jpeg", ".png", ".html")
PANEL_PX = 300
ON_PAGE_PX = 480
SHEET_COLUMNS = 2
GAP_PX = 6
DIMMED = 0.35
"""Of the picture's brightness, where it lies under a map."""
LEGEND = (
    "left: the picture as the net gets it, labels in blue, ignored ones in grey; middle: the shrink map, kernels in "
    "orange, where it does not count in magenta; right: the threshold map where it counts, dark 0 to bright 1"
)


@dataclass(frozen=True)
class ShownSample:
    """One training sample, drawn: three pictures of one size."""

    name: str
    """Of the picture's file."""
    said: str
    """What was done to the picture."""
    picture: Image
    shrink: Image
    threshold: Image


def show_samples(
    labels: Path,
    out: Path,
    number: int = 12,
    config: Path | None = None,
    root: Path | None = None,
    overrides: Sequence[str] = (),
) -> str:
    """Draws the samples with which a run's first epoch begins, in their order, to a picture or a page.

    Args: config is the recipe whose `data` and `run.seed` make the samples; absent: cml's own values.
    Returns: a line that says what was written and what is to be seen.
    Raises: ConfigError, DataError as a run's start; DataError for another suffix than .jpg, .jpeg, .png and .html.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise DataError(f"{out}: expected a name that ends in {', '.join(SUFFIXES)}")
    cfg = override(CMLConfig(), overrides) if config is None else load_config(config, overrides)
    given = {"data.train": [str(labels)], "data.root": root and str(root), "data.mix": None, "data.ratios": []}
    cfg = with_values(cfg, given, "command line")
    shown = first_samples(cfg, number)
    if out.suffix.lower() == ".html":
        write_text(out, rendered(_page(labels, shown, config)))
    else:
        write_image(out, contact_sheet([_row(sample) for sample in shown], SHEET_COLUMNS, 3 * PANEL_PX))
    return f"{out}: {_number(shown)}; {LEGEND}"


def first_samples(cfg: RecipeConfig, number: int) -> list[ShownSample]:
    """The first ones of a run's first epoch, drawn; a small set comes round again, augmented anew.

    Raises: DataError, ConfigError as a run's start.
    """
    samples = read_train(cfg)
    dataset = TrainDataset(samples, cfg.data.augment, cfg.data.targets, cfg.run.seed)
    (keys,) = TrainSampler(len(samples), number, number, cfg.run.seed)
    return [_shown(dataset.drawn(key), dataset[key]) for key in keys]


def _shown(sample: DrawnSample, item: Item) -> ShownSample:
    picture = np.ascontiguousarray(item.image.numpy().transpose(1, 2, 0))
    polygons, ignore = sample.shown()
    marks = [
        Mark(polygon, IGNORED if left_out else LABELLED) for polygon, left_out in zip(polygons, ignore, strict=True)
    ]
    targets = item.targets
    return ShownSample(
        Path(sample.path).name,
        _in_words(sample.augmentation, len(polygons), int(ignore.sum())),
        draw_marks(picture, marks),
        draw_shrink(picture, targets.shrink_map.numpy(), targets.shrink_mask.numpy()),
        draw_threshold(picture, targets.threshold_map.numpy(), targets.threshold_mask.numpy()),
    )


def draw_shrink(picture: Image, shrink_map: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Image:
    """Kernels in orange on the dimmed picture; magenta where the map does not count."""
    canvas = _dimmed(picture)
    _tint(canvas, mask == 0, WRONG)
    _tint(canvas, shrink_map > 0, PREDICTED)
    return canvas


def draw_threshold(picture: Image, threshold_map: NDArray[np.float32], mask: NDArray[np.uint8]) -> Image:
    """The map in colours where it counts, the dimmed picture elsewhere."""
    levels = np.rint(255 * np.clip(threshold_map, 0, 1)).astype(np.uint8)
    coloured = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO).astype(np.uint8, copy=False)
    return np.where((mask > 0)[..., None], coloured, _dimmed(picture))


def _dimmed(picture: Image) -> Image:
    return (picture * DIMMED).astype(np.uint8)


def _tint(canvas: Image, where: NDArray[np.bool_], colour: Colour) -> None:
    canvas[where] = (canvas[where] * 0.4 + np.array(colour) * 0.6).astype(np.uint8)


def _in_words(drawn: Augmentation, regions: int, ignored: int) -> str:
    parts = ["mirrored"] if drawn.flip else []
    parts += [f"turned by {drawn.degrees:.1f} degrees", f"scaled by {drawn.scale * drawn.fit:.2f}"]
    crop = drawn.crop
    parts.append(f"cut to {crop.width}x{crop.height}, shown as {drawn.filled[0]}x{drawn.filled[1]}")
    said = "no region" if not regions else f"{regions} region{'s' if regions > 1 else ''}, {ignored} ignored"
    return f"{', '.join(parts)}; {said}"


def _number(shown: Sequence[ShownSample]) -> str:
    return f"{len(shown)} sample{'s' if len(shown) > 1 else ''}"


def _row(sample: ShownSample) -> Image:
    panels = []
    for image in (sample.picture, sample.shrink, sample.threshold):
        panel = cv2.resize(
            image, (PANEL_PX, round(PANEL_PX * image.shape[0] / image.shape[1])), interpolation=cv2.INTER_AREA
        )
        panels.append(panel)
    row = np.hstack(panels).astype(np.uint8, copy=False)
    row[:, -GAP_PX:] = row[-GAP_PX:] = 255
    return row


def _page(labels: Path, shown: Sequence[ShownSample], config: Path | None) -> Page:
    blocks = []
    for sample in shown:
        images = (sample.picture, sample.shrink, sample.threshold)
        names = ("as the net gets it", "shrink map", "threshold map")
        drawn = [as_picture(within(i, ON_PAGE_PX)[0], name) for i, name in zip(images, names, strict=True)]
        blocks.append(Pictures(f"{sample.name}: {sample.said}", tuple(drawn)))
    lead = f"{LEGEND[0].upper()}{LEGEND[1:]}."
    return Page(
        title=labels.name,
        kind="training samples",
        about=" · ".join([f"recipe {config or CMLConfig().recipe}", written()]),
        headline=Headline(f"The first {_number(shown)} of a run, as its net gets them."),
        sections=(Section("samples", "Samples", lead, tuple(blocks)),),
    )
