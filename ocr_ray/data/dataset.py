"""Training samples as a pure function of (seed, epoch, index), and which of them come when, on which worker."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler, get_worker_info

from ocr_ray.data.augment import Augmentation, AugmentConfig, Polygons, draw_augmentation
from ocr_ray.data.batch import Failure, Item, Key, Targets
from ocr_ray.data.copy_paste import Donors, paste_words
from ocr_ray.data.decoded import DecodedStore
from ocr_ray.data.images import Image
from ocr_ray.data.labels import Sample
from ocr_ray.data.memory import keep_freed_memory
from ocr_ray.data.reduced import ReducedImage, read_jpeg_header, read_reduced, shrink
from ocr_ray.data.targets import TargetConfig, draw_targets
from ocr_ray.errors import DataError

MAX_REPLACEMENTS = 10
"""Samples drawn in place of a broken one before the run is told that the data cannot be read."""
NO_MAPS = Targets(*[torch.empty(0, dtype=torch.uint8)] * 4)
"""Of a dataset that draws none."""


@dataclass(frozen=True, eq=False)
class DrawnSample:
    """All that is random about a sample, and its picture as it was read; nothing is warped or drawn yet.

    `polygons` and `ignore` are those of the whole picture, pasted words included. The rest is as in `Item`.
    """

    augmentation: Augmentation
    image: ReducedImage
    polygons: Polygons
    ignore: NDArray[np.bool_]
    key: Key
    path: str
    failures: tuple[Failure, ...] = ()

    def shown(self) -> tuple[list[NDArray[np.float64]], NDArray[np.bool_]]:
        """The polygons as they lie in what the net sees, and which of them are ignored."""
        moved, kept = self.augmentation.moved(self.polygons)
        return moved, self.ignore[kept]


class TrainDataset(Dataset[Item]):
    """Augmented pictures with their target maps; a key is `(epoch, index)`, see `TrainSampler`.

    A sample depends on seed, epoch and index alone: not on the process that makes it, nor on what was made before.

    Args: targets says how the maps are drawn; None leaves them empty, for those who only look at the pictures.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        augment: AugmentConfig,
        targets: TargetConfig | None,
        seed: int,
        store: DecodedStore | None = None,
    ) -> None:
        """`store` holds decoded pictures for all processes of a node; it changes no picture."""
        self._samples = samples
        self._augment = augment
        self.targets = targets
        self._seed = seed
        self._store = store or DecodedStore()
        self._donors = Donors(samples, augment.copy_paste.cache_mib, self._store.read)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: Key) -> Item:
        """The sample of a key. Raises: DataError as `drawn`."""
        sample = self.drawn(key)
        picture = _channels_first(sample.augmentation.picture(sample.image))
        targets = NO_MAPS if self.targets is None else _maps(sample, self.targets)
        return Item(picture, targets, key, sample.path, sample.failures)

    def drawn(self, key: Key) -> DrawnSample:
        """What was drawn for a key. One whose picture cannot be read gives its place to another, drawn from the key.

        Raises: DataError when those that were drawn in its place could not be read either.
        """
        if get_worker_info() is not None:
            cv2.setNumThreads(1)  # the loader's processes are the parallelism
        keep_freed_memory()
        epoch, index = key
        failures: list[Failure] = []
        for candidate in chain([index], self._replacements(key)):
            try:
                sample = self._draw((epoch, candidate))
            except DataError as e:
                failures.append(Failure((epoch, candidate), str(self._samples[candidate].image), str(e)))
            else:
                return replace(sample, key=key, failures=(*failures, *sample.failures)) if failures else sample
        raise DataError(
            f"{failures[0].reason}; nor could any of {MAX_REPLACEMENTS} other pictures be read, "
            f"the last because {failures[-1].reason}"
        )

    def _replacements(self, key: Key) -> Iterator[int]:
        """Only drawn where one is needed."""
        rng = np.random.default_rng((self._seed, *key, 1))
        yield from rng.integers(len(self._samples), size=MAX_REPLACEMENTS).tolist()

    def _draw(self, key: Key) -> DrawnSample:
        """Raises: DataError when the picture cannot be read."""
        epoch, index = key
        sample, cfg = self._samples[index], self._augment
        rng = np.random.default_rng((self._seed, epoch, index))
        polygons: list[NDArray[np.floating]] = list(sample.polygons)
        ignore = sample.ignore
        failures: tuple[Failure, ...] = ()
        if cfg.copy_paste.enabled and polygons:  # a picture without text stays without
            image, polygons, failures = self._with_pasted_words(key, rng)
            ignore = np.append(ignore, np.zeros(len(polygons) - len(ignore), np.bool_))
            augmentation, reduced = _augmented(image, polygons, ignore, cfg, rng)
        else:
            augmentation, reduced = _read_augmented(sample.image, self._store, polygons, ignore, cfg, rng)
        return DrawnSample(augmentation, reduced, polygons, ignore, key, str(sample.image), failures)

    def _with_pasted_words(
        self, key: Key, rng: np.random.Generator
    ) -> tuple[Image, list[NDArray[np.floating]], tuple[Failure, ...]]:
        """The picture with another one's words on it and all polygons, clipped to the picture as in the reference.

        Where the other one cannot be read the picture stays as it is, and the failure is told.
        """
        epoch, index = key
        sample = self._samples[index]
        image = self._store.read(sample.image)
        polygons: list[NDArray[np.floating]] = list(sample.polygons)
        failures: tuple[Failure, ...] = ()
        donor = self._donors.draw(index, rng)
        if donor is not None:
            try:
                words = self._donors.words(donor)
            except DataError as e:
                failures = (Failure((epoch, donor), str(self._samples[donor].image), str(e)),)
            else:
                image, pasted = paste_words(image, polygons, words, self._augment.copy_paste, rng)
                polygons += pasted
        height, width = image.shape[:2]
        return image, [np.clip(p, 0, (width, height)) for p in polygons], failures


def turn_order(seed: int, turn: int, num_samples: int) -> NDArray[np.int64]:
    """The samples in the order in which turn number `turn` through them takes them: `(num_samples,)` indices."""
    return np.random.default_rng((seed, turn)).permutation(num_samples)


class TrainSampler(Sampler[list[Key]]):
    """Batches of `(epoch, index)` keys for one rank: the `batch_sampler` of a DataLoader over `TrainDataset`.

    The samples come in an endless stream of seeded permutations. Epoch e takes `epoch_size` of them from place
    `e * epoch_size` on, by default one whole permutation. The `epoch` in a key counts permutations, so that a sample
    that comes twice in an epoch, or in an epoch that ends in mid-permutation, is never the same picture twice.

    A step takes `world_size * batch_size` samples and deals each rank `batch_size` of them: which samples a step sees
    depends on that product alone. The last step may be short. It has the same size on each rank, if need be by taking
    up to `world_size - 1` samples from the epoch's start once more, as the reference does.
    """

    def __init__(
        self,
        num_samples: int,
        epoch_size: int | None,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if num_samples < 1 or batch_size < 1 or (epoch_size is not None and epoch_size < 1):
            raise ValueError(f"TrainSampler: {num_samples=}, {batch_size=}, {epoch_size=}, expected at least 1")
        if not 0 <= rank < world_size:
            raise ValueError(f"TrainSampler: {rank=} with {world_size=}")
        self.num_samples = num_samples
        self._epoch_size = epoch_size or num_samples
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch, from 0, the next iteration gives."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Steps per epoch, the same on each rank."""
        return -(-self._epoch_size // (self._batch_size * self._world_size))

    def __iter__(self) -> Iterator[list[Key]]:
        keys = self._keys()
        missing = -len(keys) % self._world_size
        keys += (keys * (-(-missing // len(keys))))[:missing]
        step_size = self._batch_size * self._world_size
        for start in range(0, len(keys), step_size):
            share = min(step_size, len(keys) - start) // self._world_size
            mine = start + self._rank * share
            yield keys[mine : mine + share]

    def _keys(self) -> list[Key]:
        place, end = self._epoch * self._epoch_size, (self._epoch + 1) * self._epoch_size
        keys: list[Key] = []
        while place < end:
            turn, at = divmod(place, self.num_samples)
            order = turn_order(self._seed, turn, self.num_samples)
            taken = order[at : at + end - place].tolist()
            keys += [(turn, index) for index in taken]
            place += len(taken)
        return keys


def _read_augmented(
    path: Path,
    store: DecodedStore,
    polygons: Polygons,
    ignore: NDArray[np.bool_],
    cfg: AugmentConfig,
    rng: np.random.Generator,
) -> tuple[Augmentation, ReducedImage]:
    """Draws from a JPEG's size first and reads it no larger than the crop needs. Raises: DataError as `read_image`."""
    header = read_jpeg_header(path)
    if header is not None:
        augmentation = draw_augmentation(polygons, ignore, header.width, header.height, cfg, rng)
        image = read_reduced(path, header, augmentation.reduction, store.decode)
        if image is not None:
            return augmentation, image
    return _augmented(store.read(path), polygons, ignore, cfg, rng)


def _augmented(
    image: Image, polygons: Polygons, ignore: NDArray[np.bool_], cfg: AugmentConfig, rng: np.random.Generator
) -> tuple[Augmentation, ReducedImage]:
    height, width = image.shape[:2]
    augmentation = draw_augmentation(polygons, ignore, width, height, cfg, rng)
    return augmentation, shrink(image, augmentation.reduction)


def _maps(sample: DrawnSample, cfg: TargetConfig) -> Targets:
    to = sample.augmentation
    drawn = draw_targets(*sample.shown(), to.crop_height, to.crop_width, cfg)
    return Targets(
        _tensor(drawn.shrink_map),
        _tensor(drawn.shrink_mask),
        _tensor(drawn.threshold_map),
        _tensor(drawn.threshold_mask),
    )


def _channels_first(image: Image) -> Tensor:
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, list(planes))  # five times as fast as a transposed copy
    return torch.from_numpy(planes)


def _tensor(drawn: NDArray[np.uint8] | NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(drawn)
