"""The photographs on which a sweep's winner does worst, as it and the control see them, for a page.

Imported by whoever wants them alone: the nets bring PyTorch.
"""

import base64
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch

from ocr_ray.config import load_config
from ocr_ray.data.images import Image, read_image
from ocr_ray.data.labels import Sample
from ocr_ray.engine.evaluate import EvalConfig, ImageResult, evaluate
from ocr_ray.errors import UserError
from ocr_ray.metrics import MatchCounts
from ocr_ray.model_card import load_detector
from ocr_ray.recipes import read_val
from ocr_ray.report.blocks import Picture, Pictures
from ocr_ray.report.contents import ImageCounts, Sweep
from ocr_ray.report.read import CONFIG_FILE
from ocr_ray.visualize import draw_regions

START = Path("start/best/student.safetensors")
"""In a sweep's folder: the weights before any training, as a file of ours."""
SHOWN = 6
LOOKED_AT = 48
"""Pictures of val among which the worst are looked for where no counts by picture were kept: a CPU takes up to a
second for one, and nobody waits for more at the end of a sweep."""
WIDTH_PX = 720
JPEG_QUALITY = 76


@dataclass(frozen=True)
class Worst:
    """What is shown, and what is to be said about it; with no pictures, why."""

    pictures: tuple[Pictures, ...]
    note: str


@dataclass(frozen=True)
class _Net:
    name: str
    weights: Path


def worst_pictures(sweep: Sweep, shown: int = SHOWN) -> Worst:
    """At most so many, the worst first. What cannot be had is said in `note`, never raised."""
    try:
        return _worst(sweep, shown)
    except UserError as e:
        return Worst((), f"The pictures cannot be shown: {e}")


def _worst(sweep: Sweep, shown: int) -> Worst:
    winner = sweep.answer
    if winner is None:
        return Worst((), "No trial was evaluated, so there is nothing to show.")
    name = winner.name if winner.arm is None else winner.arm.title
    if winner.weights is None:
        return Worst((), f"The weights of {name} are not there any more, so its pictures cannot be drawn.")
    nets = [_Net(name, winner.weights), *_opponent(sweep)]
    samples = read_val(load_config(sweep.folder / CONFIG_FILE))
    chosen, among = _choose(nets[0], samples, winner.per_image, shown)
    if not chosen:
        return Worst((), f"{name[:1].upper()}{name[1:]} makes no mistake on the {among} pictures of val.")
    seen = [_look(net, chosen) for net in nets]
    pairs = []
    for sample in chosen:
        drawn = [
            _drawn(net, results[sample.image])
            for net, results in zip(nets, seen, strict=True)
            if sample.image in results
        ]
        if drawn:
            pairs.append(Pictures(sample.name or sample.image.name, tuple(drawn)))
    note = f"Of {among} pictures of val, those on which {name} misses or invents most for their size."
    if len(nets) == 1:
        note += " There is no control whose weights it could be set against."
        alone = [dataclasses.replace(p, caption=f"{pair.title}: {p.caption}") for pair in pairs for p in pair.pictures]
        return Worst((Pictures("", tuple(alone)),) if alone else (), note)
    return Worst(tuple(pairs), note)


def _opponent(sweep: Sweep) -> list[_Net]:
    """The control; where that is the winner itself, the weights that training started from. After a confirmation a
    control that is the answer is set against the best of what did not beat it."""
    found = sweep.confirmation
    if found is not None and (answer := found.answer) is not None:
        beside = [(arm, arm.weights) for arm in found.arms if arm is not answer and arm.weights is not None]
        if not answer.is_control:  # the config's own values, else the start
            beside = [(arm, weights) for arm, weights in beside if arm.is_control]
        beside.sort(key=lambda one: (one[0].is_trained, one[0].mean), reverse=True)
        return [_Net(f"{arm.title}, trained again" if arm.is_trained else arm.title, w) for arm, w in beside[:1]]
    control = sweep.control
    if control is not None and control is not sweep.winner and control.weights is not None:
        return [_Net(f"{control.name}, the config's own values", control.weights)]
    given = sweep.config.get("student.weights")
    for start in (sweep.folder / START, Path(given if isinstance(given, str) else "")):
        if start.is_file():
            return [_Net("the weights it started from", start)]
    return []


def _choose(
    net: _Net, samples: Sequence[Sample], counts: Sequence[ImageCounts], shown: int
) -> tuple[list[Sample], int]:
    """Those with the lowest F-measure of their own, and among how many they were looked for."""
    known = [
        (c.matched, c.ground_truth, c.detected, samples[c.index])
        for c in counts
        # Another set of that size may lie there today.
        if c.index < len(samples) and c.name in (samples[c.index].name, str(samples[c.index].image))
    ]
    if not known:
        some = [samples[i * len(samples) // LOOKED_AT] for i in range(LOOKED_AT)]
        looked = _look(net, samples if len(samples) <= LOOKED_AT else some)
        known = [(*_counts(r.counts), r.sample) for r in looked.values()]
    faulty = [k for k in known if 2 * k[0] < k[1] + k[2]]
    faulty.sort(key=lambda k: (2 * k[0] / (k[1] + k[2]), 2 * k[0] - k[1] - k[2]))
    return [sample for *_, sample in faulty[:shown]], len(known)


def _counts(counts: MatchCounts) -> tuple[int, int, int]:
    return counts.matched, counts.ground_truth, counts.detected


def _look(net: _Net, samples: Sequence[Sample]) -> dict[Path, ImageResult]:
    """Results by picture; one that cannot be read has none."""
    detector, card, _ = load_detector(net.weights)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cfg = EvalConfig(resize=card.resize, postprocess=card.postprocess)
    found: dict[Path, ImageResult] = {}

    def keep(result: ImageResult) -> None:
        found[result.sample.image] = result

    evaluate(detector.to(device), samples, card.normalize, cfg, device, on_image=keep)
    return found


def _drawn(net: _Net, result: ImageResult) -> Picture:
    image = read_image(result.sample.image)
    scale = min(1.0, WIDTH_PX / image.shape[1])
    if scale < 1:
        size = (WIDTH_PX, max(1, round(image.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(image.dtype)
    found = [d.polygon * scale for d in result.detections]
    labelled = [polygon * scale for polygon in result.sample.polygons]
    regions = draw_regions(image, found, labelled, result.sample.ignore)
    matched, labels, detected = _counts(result.counts)
    wrong = detected - matched
    return as_picture(regions, f"{net.name}: {matched} of {labels} found" + (f", {wrong} wrong" if wrong else ""))


def as_picture(image: Image, caption: str) -> Picture:
    """For a page, in its own size."""
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return Picture(base64.b64encode(jpeg.tobytes()).decode("ascii"), image.shape[1], image.shape[0], caption)
