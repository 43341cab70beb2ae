"""Training samples at 960x960 against `cv2.imread` of the same file: with their labels, with 100 quads, with CopyPaste.

The pipeline is `TrainDataset[key]`: file to uint8 picture and four maps. The reference's ends with a float32 picture,
normalised; ours is normalised on the device. With `data.on_device` the CPU's part is `CompactDataset[key]`. What
joining samples into a batch adds is told beside it, for both.
"""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.reference import Reference, ReferenceLine
from benchmarks.rows import Bench, Row, Subject
from benchmarks.timing import alternate
from ocr_ray.data.augment import AugmentConfig
from ocr_ray.data.batch import collate
from ocr_ray.data.compact import CompactDataset, collate_compact
from ocr_ray.data.copy_paste import CopyPasteConfig
from ocr_ray.data.dataset import TrainDataset
from ocr_ray.data.labels import Sample
from ocr_ray.data.targets import TargetConfig
from ocr_ray.geometry import affine

SEED = 1
BATCH = 8
Side = Callable[[int], object]


def rows(bench: Bench) -> list[Row]:
    """Four rows."""
    samples = bench.pictures.samples
    rounds = 3 if bench.quick else 7
    plain = _pipeline(samples)
    pasting = _pipeline(samples, CopyPasteConfig(enabled=True))
    sides: dict[str, Side] = {"imread": _imread(samples), "plain": plain, "pasting": pasting}
    sides["compact"] = _compact(samples)
    if bench.reference is not None:
        sides["reference"] = _reference(bench.reference, samples)
        sides["reference pasting"] = _reference(bench.reference, samples, copy_paste=True)
    for index in range(len(samples)):
        pasting(index)  # the donors' words are cut out once in a run, not once a picture
    seconds = {name: float(each.sum()) for name, each in alternate(sides, len(samples), rounds).items()}
    floor = seconds["imread"]
    has_reference = bench.reference is not None
    how = f"{bench.pictures.what}, CPU time of one thread, least of {rounds} alternating rounds each, summed"
    milliseconds = f"; imread {1000 * floor / len(samples):.2f} ms"
    return [
        Row(
            "train pipeline, real labels, 960x960, without CopyPaste",
            seconds["plain"] / floor,
            3.0,
            "x imread",
            how + milliseconds,
            seconds["reference"] / floor if has_reference else None,
        ).with_reason("by the profile the warp and the decoder, one OpenCV call each, take 2.2 x imread"),
        Row(
            "the same where a device warps and draws the maps: the CPU's part",
            seconds["compact"] / floor,
            1.3,
            "x imread",
            how + _joining(samples, floor / len(samples), rounds),
        ).with_reason("by the profile the decoder alone takes 0.9 of it"),
        _with_hundred_quads(bench, samples[: max(8, len(samples) // 4)], rounds),
        Row(
            "CopyPaste, added to it",
            (seconds["pasting"] - seconds["plain"]) / floor,
            1.0,
            "x imread",
            how + "; donors' words warm in memory, as after the first epochs",
            (seconds["reference pasting"] - seconds["reference"]) / floor if has_reference else None,
        ),
    ]


def hundred_quads(width: int, height: int, rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """100 turned word-like quads on a grid of 10 x 10, apart from each other."""
    quads = []
    cell_width, cell_height = width / 10, height / 10
    for row in range(10):
        for column in range(10):
            w, h = cell_width * rng.uniform(0.4, 0.8), cell_height * rng.uniform(0.2, 0.5)
            corners = affine.apply(affine.rotation(rng.uniform(-15, 15), w, h), [(0, 0), (w, 0), (w, h), (0, h)])
            middle = np.array([(column + 0.5) * cell_width, (row + 0.5) * cell_height])
            quads.append((corners - (w / 2, h / 2) + middle).astype(np.float32))
    return quads


def _with_hundred_quads(bench: Bench, samples: list[Sample], rounds: int) -> Row:
    rng = np.random.default_rng(SEED)
    full = []
    for sample in samples:
        height, width = cv2.imread(str(sample.image)).shape[:2]  # type: ignore[union-attr]
        quads = tuple(hundred_quads(width, height, rng))
        full.append(replace(sample, polygons=quads, ignore=np.zeros(100, np.bool_), texts=("word",) * 100))
    sides: dict[str, Side] = {"imread": _imread(full), "ours": _pipeline(full)}
    if bench.reference is not None:
        sides["reference"] = _reference(bench.reference, full)
    seconds = {name: float(each.sum()) for name, each in alternate(sides, len(full), rounds).items()}
    return Row(
        "the same with 100 quads a picture",
        seconds["ours"] / seconds["imread"],
        5.0,
        "x imread",
        f"{len(full)} of the pictures, 100 turned quads on a grid instead of their labels, {rounds} rounds",
        seconds["reference"] / seconds["imread"] if bench.reference is not None else None,
    ).with_reason(
        "by the profile more than half of it are the maps: some 350 surroundings of edges, two offsets and three fills "
        "for each quad"
    )


def _pipeline(samples: list[Sample], copy_paste: CopyPasteConfig | None = None) -> Side:
    cfg = AugmentConfig(copy_paste=copy_paste or CopyPasteConfig())
    dataset = TrainDataset(samples, cfg, TargetConfig(), SEED)
    return lambda index: dataset[(0, index)]


def _compact(samples: list[Sample]) -> Side:
    dataset = CompactDataset(TrainDataset(samples, AugmentConfig(), TargetConfig(), SEED))
    return lambda index: dataset[(0, index)]


def _joining(samples: list[Sample], imread: float, rounds: int) -> str:
    """What it adds to have samples in a batch, per sample."""
    whole = TrainDataset(samples, AugmentConfig(), TargetConfig(), SEED)
    keys = [(0, index) for index in range(min(BATCH, len(samples)))]
    items, compact = [whole[key] for key in keys], [CompactDataset(whole)[key] for key in keys]
    sides: dict[str, Side] = {"compact": lambda _: collate_compact(compact), "whole": lambda _: collate(items)}
    seconds = {name: each[0] / len(keys) for name, each in alternate(sides, 1, 3 * rounds).items()}
    return (
        f"; joining {len(keys)} into a batch adds {seconds['compact'] / imread:.2f} to it, "
        f"and {seconds['whole'] / imread:.2f} to the row above"
    )


def _imread(samples: list[Sample]) -> Side:
    return lambda index: cv2.imread(str(samples[index].image))


def _reference(reference: Reference, samples: list[Sample], copy_paste: bool = False) -> Side:
    pipeline = reference.pipeline(copy_paste)
    lines = [ReferenceLine.of(sample) for sample in samples]
    able = [line for line, s in zip(lines, samples, strict=True) if not s.ignore.all()]  # with words to paste

    def run(index: int) -> object:
        return pipeline(lines[index], able[index * 7 % len(able)], index)

    return run


SUBJECT = Subject("pipeline", rows)
