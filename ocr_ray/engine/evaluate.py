"""A detector over labelled pictures: precision, recall, hmean, and why when they are 0."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from ocr_ray.data.images import Image, read_image
from ocr_ray.data.labels import Sample
from ocr_ray.data.normalize import NormalizeConfig, normalize
from ocr_ray.data.resize import ResizeConfig, resize_for_test
from ocr_ray.engine.diagnosis import MapStatistics, diagnose
from ocr_ray.engine.per_image import ImageCounts
from ocr_ray.errors import ConfigError, DataError
from ocr_ray.metrics import MatchCounts, Score, match
from ocr_ray.models.detector import Detector
from ocr_ray.models.onnx_detector import OnnxDetector
from ocr_ray.postprocess import Detection, PostprocessConfig, boxes_from_map

READ_AHEAD = 4  # pictures decoded while the net runs, beyond the batch


@dataclass(frozen=True)
class EvalConfig:
    """How and when a detector is evaluated."""

    resize: ResizeConfig = field(default_factory=ResizeConfig)
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)
    every_epochs: int = 1
    """Evaluate after each so many epochs, and after the last."""
    batch_size: int = 1
    """Pictures of equal resized size that follow one another go through the net together. On a CPU 1 is as fast."""
    bf16: bool = False
    """The net computes in bfloat16 where that is safe; post-processing stays in float32."""

    def __post_init__(self) -> None:
        if self.every_epochs < 1:
            raise ConfigError(f"eval.every_epochs: expected at least 1, found {self.every_epochs}")
        if self.batch_size < 1:
            raise ConfigError(f"eval.batch_size: expected at least 1, found {self.batch_size}")


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, over all ranks."""

    score: Score
    images: int
    """Pictures that were read; the figures are theirs."""
    resize: str
    """The rule by which they were resized, in words."""
    unreadable: tuple[str, ...] = ()
    """Why each of the others could not be read, with its path. They count neither as hits nor as misses."""
    diagnosis: str | None = None
    """Where hmean is 0: the reason, in one line."""
    per_image: tuple[ImageCounts, ...] = ()
    """What each picture that was read gave, in the order of the set; the score is that of their sums."""

    def as_dict(self) -> dict[str, float | int | str | list[str] | None]:
        """Flat, as JSON holds it."""
        score = self.score
        return {
            "precision": score.precision,
            "recall": score.recall,
            "hmean": score.hmean,
            "images": self.images,
            "matched": score.matched,
            "ground_truth": score.ground_truth,
            "detected": score.detected,
            "resize": self.resize,
            "unreadable": list(self.unreadable),
            "diagnosis": self.diagnosis,
        }

    def one_line(self) -> str:
        """For a person: the figures, the counts, the rule, and what went wrong."""
        score = self.score
        line = (
            f"hmean {score.hmean:.4f}  precision {score.precision:.4f}  recall {score.recall:.4f}  "
            f"({score.matched} matched of {score.ground_truth} regions, {score.detected} detections, "
            f"{self.images} images, {self.resize})"
        )
        if self.unreadable:
            line += f"; {len(self.unreadable)} images left out, the first: {self.unreadable[0]}"
        return f"{line}; {self.diagnosis}" if self.diagnosis else line


@dataclass(frozen=True)
class ImageResult:
    """One picture of an evaluation, for progress and for drawing."""

    sample: Sample
    detections: list[Detection]
    counts: MatchCounts
    probability: NDArray[np.float32]
    """The shrink map `(H, W)`, at the size at which the picture entered the net."""
    width: int = 0
    """Of the picture as on disk, in pixels."""
    height: int = 0


@torch.no_grad()
def shrink_maps(
    detector: Detector | OnnxDetector,
    images: Sequence[Image],
    cfg: NormalizeConfig,
    device: torch.device,
    bf16: bool = False,
) -> NDArray[np.float32]:
    """What the net sees in N pictures of one size, `(H, W, 3)` uint8 each: probabilities `(N, H, W)` float32.

    Sides are multiples of 32, as `resize_for_test` makes them. The detector is used in the mode that it is in.
    """
    # The channels stay innermost in memory: convolutions are faster so, and nothing has to be moved.
    batch = torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        maps = detector.shrink_map(normalize(batch, cfg))
    return maps.float().cpu().numpy()


def evaluate(
    detector: Detector | OnnxDetector,
    samples: Sequence[Sample],
    normalize_cfg: NormalizeConfig,
    cfg: EvalConfig,
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
    on_image: Callable[[ImageResult], None] | None = None,
) -> Evaluation:
    """Precision, recall and hmean of `detector` on `samples`, in the coordinates of the pictures as they are on disk.

    Rank r of w evaluates `samples[r::w]`; the counts are then added up, and each rank returns the same. The detector
    is used in eval mode and left as it was found. `on_image` is called for each picture of this rank.

    Raises: DataError when there is no sample, or when no picture at all could be read.
    """
    if not samples:
        raise DataError("evaluation: no labelled picture to evaluate on")
    modes = [(module, module.training) for module in detector.modules()]
    detector.eval()
    try:
        mine = dict(list(enumerate(samples))[rank::world_size])
        part = _evaluate_part(detector, mine, normalize_cfg, cfg, device, on_image)
    finally:
        for module, was_training in modes:
            module.training = was_training
    if world_size > 1:
        part = _over_ranks(part, world_size, device)
    if not part.images:
        raise DataError(f"evaluation: none of {len(samples)} pictures could be read, the first: {part.unreadable[0]}")
    score = Score.from_counts(part.counts)
    regions = sum(len(sample.polygons) for sample in samples)
    diagnosis = None if score.hmean else diagnose(part.counts, part.found, part.maps, regions, cfg.postprocess)
    per_image = tuple(sorted(part.per_image, key=lambda picture: picture.index))
    return Evaluation(score, part.images, str(cfg.resize), part.unreadable, diagnosis, per_image)


@dataclass(frozen=True)
class _Part:
    """What one rank saw, or a sum of them."""

    counts: MatchCounts = field(default_factory=MatchCounts)
    found: int = 0  # detections, ignored ones as well
    images: int = 0
    unreadable: tuple[str, ...] = ()
    maps: MapStatistics = field(default_factory=MapStatistics)
    per_image: tuple[ImageCounts, ...] = ()

    def __add__(self, other: "_Part") -> "_Part":
        return _Part(
            self.counts + other.counts,
            self.found + other.found,
            self.images + other.images,
            self.unreadable + other.unreadable,
            self.maps + other.maps,
            self.per_image + other.per_image,
        )


def _evaluate_part(
    detector: Detector | OnnxDetector,
    samples: Mapping[int, Sample],
    normalize_cfg: NormalizeConfig,
    cfg: EvalConfig,
    device: torch.device,
    on_image: Callable[[ImageResult], None] | None,
) -> _Part:
    """Of samples by their place in the whole set."""
    part = _Part()
    per_image: list[ImageCounts] = []
    for batch in _batches(_read_ahead(samples, cfg, readers=1 if device.type == "cpu" else 4), cfg.batch_size):
        if isinstance(batch, str):
            part += _Part(unreadable=(batch,))
            continue
        maps = shrink_maps(detector, [picture.resized for picture in batch], normalize_cfg, device, cfg.bf16)
        for picture, probability in zip(batch, maps, strict=True):
            sample = picture.sample
            detections = boxes_from_map(probability, cfg.postprocess, picture.width, picture.height)
            counts = match(sample.polygons, sample.ignore, [d.polygon for d in detections])
            part += _Part(counts, len(detections), 1, maps=MapStatistics.of(probability))
            name = sample.name or str(sample.image)
            per_image.append(ImageCounts(picture.index, name, counts.matched, counts.ground_truth, counts.detected))
            if on_image is not None:
                on_image(ImageResult(sample, detections, counts, probability, picture.width, picture.height))
    return replace(part, per_image=tuple(per_image))


@dataclass(frozen=True)
class _Picture:
    index: int  # in the whole set
    sample: Sample
    resized: Image
    width: int  # as on disk, in pixels
    height: int


def _read(index: int, sample: Sample, cfg: ResizeConfig) -> _Picture | str:
    """The picture, or why it could not be read."""
    try:
        image = read_image(sample.image)
        height, width = image.shape[:2]
        return _Picture(index, sample, resize_for_test(image, cfg, str(sample.image))[0], width, height)
    except DataError as e:
        return str(e)


def _read_ahead(samples: Mapping[int, Sample], cfg: EvalConfig, readers: int) -> Iterator[_Picture | str]:
    """The pictures in their order, decoded and resized by threads while the net runs."""
    with ThreadPoolExecutor(readers, thread_name_prefix="read") as pool:
        waiting: deque[Future[_Picture | str]] = deque()
        for index, sample in samples.items():
            waiting.append(pool.submit(_read, index, sample, cfg.resize))
            if len(waiting) > cfg.batch_size + READ_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _batches(pictures: Iterator[_Picture | str], size: int) -> Iterator[list[_Picture] | str]:
    """Neighbours of equal resized size together, up to `size`; messages about unreadable ones pass through."""
    batch: list[_Picture] = []
    for picture in pictures:
        if isinstance(picture, str):
            yield picture
            continue
        if batch and (len(batch) == size or picture.resized.shape != batch[0].resized.shape):
            yield batch
            batch = []
        batch.append(picture)
    if batch:
        yield batch


def _over_ranks(part: _Part, world_size: int, device: torch.device) -> _Part:
    parts: list[_Part | None] = [None] * world_size
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():  # where NCCL puts the bytes it sends
        dist.all_gather_object(parts, part)
    return sum((p for p in parts if p is not None), _Part())
