"""How far one warp is from the reference's chain of steps, over photographs, and a picture of it.

    python -m benchmarks.interpolation [--picture docs/interpolation.jpg]

Photographs as in `benchmarks/README.md`. All sides show the same crop: the draws are ours.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import one_thread
from benchmarks.pictures import find_pictures
from ocr_ray.data.augment import Augmentation, AugmentConfig
from ocr_ray.data.compact import CompactDataset, collate_compact
from ocr_ray.data.dataset import DrawnSample, TrainDataset
from ocr_ray.data.images import Image, read_image, write_image
from ocr_ray.data.on_device import pictures
from ocr_ray.geometry import affine

PHOTOGRAPHS, SEED = 40, 1
PANEL_WIDTH, PANEL_HEIGHT, CAPTION = 420, 300, 26
AMPLIFIED = 8
OFF_BY = 1
"""Pixels by which the chain's source is moved, to see what a wrong map would do."""


@dataclass(frozen=True)
class Difference:
    """Of two pictures, in levels of 255 over all pixels and channels of what shows the crop."""

    name: str
    levels: NDArray[np.int64]
    """How many pixels differ by 0, 1, ... 255 levels, `(256,)`."""

    @property
    def line(self) -> str:
        """For a person."""
        total = np.cumsum(self.levels) / self.levels.sum()
        mean = float((self.levels * np.arange(256)).sum() / self.levels.sum())
        median, p99, most = (int(np.searchsorted(total, share)) for share in (0.5, 0.99, 1 - 1e-12))
        return f"{self.name}: mean {mean:.4f}, median {median}, 99 % {p99}, max {most}"


def chain_of_steps(image: Image, to: Augmentation) -> Image:
    """What the reference's chain shows for our draws, an OpenCV call a step: bilinear, cubic, bilinear.

    Source: reference names `IaaAugment` (imgaug 0.4.0: Fliplr, Affine, Resize) and `EastRandomCropData`.
    """
    steps = cv2.flip(image, 1) if to.flip else image
    turn = affine.for_warp(affine.rotation(to.degrees, to.width, to.height))
    steps = cv2.warpAffine(steps, turn, (to.width, to.height), flags=cv2.INTER_LINEAR)
    scaled = max(1, round(to.width * to.scale)), max(1, round(to.height * to.scale))
    steps = cv2.resize(steps, scaled, interpolation=cv2.INTER_CUBIC)
    steps = steps[to.crop.y : to.crop.y + to.crop.height, to.crop.x : to.crop.x + to.crop.width]
    return np.asarray(cv2.resize(steps, to.filled), np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interpolation")
    parser.add_argument("--picture", type=Path, metavar="FILE.jpg", help="draw one crop by each, and the difference")
    arguments = parser.parse_args()
    one_thread()
    with tempfile.TemporaryDirectory(prefix="ocr_ray_bench_") as folder:
        found = find_pictures(PHOTOGRAPHS, Path(folder))
        dataset = TrainDataset(found.samples, AugmentConfig(), None, SEED)
        print(f"{found.what}, one crop of 960x960 each, in levels of 255")
        for difference in differences(dataset):
            print(difference.line)
        if arguments.picture is not None:
            write_image(arguments.picture, panels(dataset.drawn((0, clearest(dataset)))))


def differences(dataset: TrainDataset) -> list[Difference]:
    """Over all samples: one warp against the chain, the chain against itself a pixel off, a device against OpenCV."""
    counts = np.zeros((3, 256), np.int64)
    compact = CompactDataset(dataset)
    for index in range(len(dataset)):
        sample = dataset.drawn((0, index))
        to = sample.augmentation
        whole = read_image(Path(sample.path))
        chain, warped = chain_of_steps(whole, to), shown(sample)
        moved = chain_of_steps(np.roll(whole, OFF_BY, axis=1), to)
        device = pictures(collate_compact([compact[(0, index)]]), torch.device("cpu"))[0].permute(1, 2, 0).numpy()
        width, height = to.filled
        sides = ((warped, chain), (moved, chain), (device[:height, :width], warped))
        for row, (one, other) in zip(counts, sides, strict=True):
            row += np.bincount(cv2.absdiff(one, other).ravel(), minlength=256)
    names = (
        "one warp against the chain",
        f"the chain {OFF_BY} pixel off against itself",
        "the warp of data.on_device against OpenCV's",
    )
    return [Difference(name, row) for name, row in zip(names, counts, strict=True)]


def shown(sample: DrawnSample) -> Image:
    """The part of our picture that shows the crop."""
    width, height = sample.augmentation.filled
    return sample.augmentation.picture(sample.image)[:height, :width]


def clearest(dataset: TrainDataset) -> int:
    """The sample with the largest legible word that a panel holds whole."""

    def largest(index: int) -> float:
        moved, ignore = dataset.drawn((0, index)).shown()
        sides = [np.ptp(p, axis=0) for p, ignored in zip(moved, ignore, strict=True) if not ignored]
        return max((float(w * h) for w, h in sides if w < 0.9 * PANEL_WIDTH and h < 0.7 * PANEL_HEIGHT), default=0)

    return max(range(len(dataset)), key=largest)


def panels(sample: DrawnSample) -> Image:
    """A word by the chain, by one warp, and how they differ, side by side."""
    chain, warped = chain_of_steps(read_image(Path(sample.path)), sample.augmentation), shown(sample)
    moved, ignore = sample.shown()
    words = [p for p, ignored in zip(moved, ignore, strict=True) if not ignored]
    fitting = [p for p in words if (np.ptp(p, axis=0) < (0.9 * PANEL_WIDTH, 0.7 * PANEL_HEIGHT)).all()]
    middle = max(fitting, key=lambda p: float(np.prod(np.ptp(p, axis=0)))).mean(axis=0)
    x, y = (
        int(np.clip(at - side / 2, 0, max(size - side, 0)))
        for at, side, size in zip(middle, (PANEL_WIDTH, PANEL_HEIGHT), warped.shape[1::-1], strict=True)
    )
    difference = cv2.absdiff(chain, warped).astype(int) * AMPLIFIED
    named = {
        "flip, turn, resize, crop": chain,
        "one warp": warped,
        f"difference x {AMPLIFIED}": np.minimum(difference, 255).astype(np.uint8),
    }
    drawn = []
    for name, picture in named.items():
        panel = np.full((PANEL_HEIGHT + CAPTION, PANEL_WIDTH, 3), 255, np.uint8)
        part = picture[y : y + PANEL_HEIGHT, x : x + PANEL_WIDTH]
        panel[CAPTION : CAPTION + part.shape[0], : part.shape[1]] = part
        cv2.putText(panel, name, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        drawn.append(panel)
    return np.concatenate(drawn, axis=1)


if __name__ == "__main__":
    main()
