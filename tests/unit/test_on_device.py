"""A device's pictures and maps are those that a loader makes."""

import dataclasses
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from ocr_ray.config import RecipeConfig, StudentConfig
from ocr_ray.data import on_device as module
from ocr_ray.data.augment import Augmentation, AugmentConfig, Crop
from ocr_ray.data.batch import Batch, collate
from ocr_ray.data.compact import CompactBatch, CompactDataset, CompactItem, collate_compact
from ocr_ray.data.copy_paste import CopyPasteConfig
from ocr_ray.data.dataset import TrainDataset, TrainSampler
from ocr_ray.data.decoded import decoded_store
from ocr_ray.data.labels import read_labels
from ocr_ray.data.loaders import loader_processes
from ocr_ray.data.on_device import on_device, pictures
from ocr_ray.data.reduced import ReducedImage, shrink
from ocr_ray.data.targets import TargetConfig
from ocr_ray.engine.checkpoint import RunState
from ocr_ray.engine.loop import fit
from ocr_ray.engine.optim import build_adam
from ocr_ray.engine.teacher import fingerprints_on
from ocr_ray.recipes import build_model, build_training
from ocr_ray.typed import with_values

CPU = torch.device("cpu")
LEVELS = 1 if cv2.__version__ >= "5" else 9
"""By which a pixel may differ: OpenCV before version 5 rounds places to a 32nd of a pixel."""
MAPS = ("shrink_map", "shrink_mask", "threshold_map", "threshold_mask")
PLAIN = AugmentConfig(crop_width=96, crop_height=64)
PASTING = dataclasses.replace(PLAIN, copy_paste=CopyPasteConfig(enabled=True))
STILL = dataclasses.replace(PLAIN, rotate_degrees=0, scale_min=1, scale_max=1)
SMALL = dataclasses.replace(PLAIN, scale_min=0.1, scale_max=0.3, max_tries=0)


def assert_same(made: Batch, expected: Batch, levels: int = LEVELS) -> None:
    assert (made.keys, made.paths, made.failures) == (expected.keys, expected.paths, expected.failures)
    assert made.images.dtype == torch.uint8
    assert made.images.shape == expected.images.shape
    assert made.images.is_contiguous()
    assert (made.images.int() - expected.images.int()).abs().max() <= levels
    for name in MAPS:
        assert torch.equal(getattr(made.targets, name), getattr(expected.targets, name)), name


def both(dataset: TrainDataset, keys: list[tuple[int, int]]) -> tuple[Batch, Batch]:
    compact = CompactDataset(dataset)
    assert len(compact) == len(dataset)
    made = on_device(collate_compact([compact[key] for key in keys]), CPU)
    return made, collate([dataset[key] for key in keys]).to("cpu")


@pytest.mark.parametrize("block", [1000, module.BLOCK])
@pytest.mark.parametrize("augment", [PLAIN, PASTING, STILL, SMALL], ids=["plain", "pasting", "still", "small"])
def test_a_batch_is_the_loaders(
    small_set: Path, augment: AugmentConfig, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    dataset = TrainDataset(read_labels(small_set / "train_label.txt"), augment, TargetConfig(), seed=4)
    texts = 0
    for epoch in range(4):
        made, expected = both(dataset, [(epoch, index) for index in range(6)])
        assert_same(made, expected)
        texts += int(made.targets.shrink_map.sum())
    assert texts


def test_photographs(data_dir: Path) -> None:
    """Real labels, many of them ignored, tiny or across the border; the difference is that of two roundings."""
    samples = read_labels(data_dir / "icdar2015" / "train_label.txt")[::125]
    dataset = TrainDataset(samples, AugmentConfig(crop_width=320, crop_height=320), TargetConfig(), seed=2)
    differ = []
    for epoch in range(2):
        made, expected = both(dataset, [(epoch, index) for index in range(len(samples))])
        assert_same(made, expected)
        differ.append((made.images != expected.images).float().mean().item())
    assert np.mean(differ) < (0.001 if LEVELS == 1 else 0.5)


@pytest.mark.parametrize("cfg", [PLAIN, PASTING])
def test_a_picture_that_cannot_be_read_gives_its_place_to_the_same_one(
    small_set: Path, tmp_path: Path, cfg: AugmentConfig
) -> None:
    samples = read_labels(small_set / "train_label.txt")
    samples[2] = dataclasses.replace(samples[2], image=tmp_path / "gone.jpg")
    made, expected = both(TrainDataset(samples, cfg, TargetConfig(), seed=0), [(0, 1), (0, 2), (1, 2)])
    assert_same(made, expected)
    assert len(made.failures) >= 2


def compact_of(augmentation: Augmentation, image: ReducedImage) -> CompactItem:
    size = augmentation.crop_height, augmentation.crop_width
    return CompactItem(augmentation.source(image), augmentation.filled, size, None, [], [], (0, 0), "")


def warped(*of: tuple[Augmentation, ReducedImage]) -> NDArray[np.uint8]:
    made = pictures(collate_compact([compact_of(*one) for one in of]), CPU)
    return made.permute(0, 2, 3, 1).numpy()


def smooth(width: int, height: int) -> NDArray[np.uint8]:
    x, y = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
    waves = [np.sin(5 * x + 2), np.cos(7 * y), np.sin(4 * x * y)]
    return (127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def noise(width: int, height: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_the_identity_is_exact() -> None:
    image = noise(96, 64)
    drawn = Augmentation(96, 64, False, 0.0, 1.0, Crop(0, 0, 96, 64), 96, 64)
    assert np.array_equal(warped((drawn, ReducedImage(image)))[0], image)
    flipped = dataclasses.replace(drawn, flip=True)
    assert np.array_equal(warped((flipped, ReducedImage(image)))[0], image[:, ::-1])
    # Not by the road for pictures that are neither turned nor scaled, but by the matrix.
    assert np.array_equal(warped((dataclasses.replace(drawn, degrees=1e-9), ReducedImage(image)))[0], image)


def test_pictures_of_several_sizes_are_warped_together() -> None:
    """Turned, flipped, reduced, cut at their borders, partly black: within a level of OpenCV's."""
    of = []
    sizes = [(200, 150, 7.5), (64, 90, -170), (333, 47, 45), (1, 1, 3), (90, 90, 0)]
    for i, (width, height, degrees) in enumerate(sizes):
        scale = 1.7 - 0.3 * i
        crop = Crop(2, 1, max(1, round(width * scale) - 3), max(1, round(height * scale) - 2))
        drawn = Augmentation(width, height, i % 2 == 0, float(degrees), scale, crop, 96, 64)
        of.append((drawn, shrink(smooth(width, height), drawn.reduction)))
    for made, (drawn, image) in zip(warped(*of), of, strict=True):
        assert np.abs(made.astype(int) - drawn.picture(image)).max() <= LEVELS


@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_that_is_neither_turned_nor_scaled_goes_on_beyond_its_border(flip: bool) -> None:
    image = noise(120, 80)
    drawn = Augmentation(120, 80, flip, 0.0, 1.0, Crop(10, 20, 31, 29), 96, 64)
    made = warped((drawn, ReducedImage(image)))[0].astype(int)
    assert np.abs(made - drawn.picture(ReducedImage(image))).max() <= 1


def test_what_lies_beside_a_picture_is_black() -> None:
    image = np.full((100, 100, 3), 200, np.uint8)
    beside = Augmentation(100, 100, False, 45.0, 1.0, Crop(0, 0, 2, 2), 32, 32)
    assert beside.source(ReducedImage(image)).pixels.size == 0
    first, second = warped((beside, ReducedImage(image)), (dataclasses.replace(beside, degrees=0), ReducedImage(image)))
    assert not first.any()
    assert (second == 200).all()


def batches_of(dataset: TrainDataset, num_workers: int, rank: int = 0, world_size: int = 1) -> list[CompactBatch]:
    sampler = TrainSampler(len(dataset), None, 4 // world_size, seed=3, rank=rank, world_size=world_size)
    loader = DataLoader(
        CompactDataset(dataset),
        batch_sampler=sampler,
        collate_fn=collate_compact,
        num_workers=num_workers,
        multiprocessing_context=loader_processes() if num_workers else None,
    )
    return list(loader)


def test_loaders_stores_and_ranks_change_nothing(small_set: Path, tmp_path: Path) -> None:
    samples = read_labels(small_set / "train_label.txt")
    (tmp_path / "memory").mkdir()
    here, stored = (
        TrainDataset(samples, PLAIN, TargetConfig(), 3, store)
        for store in (None, decoded_store(64, tmp_path / "memory"))
    )
    alone = batches_of(here, 0)
    for others in (batches_of(stored, 0), batches_of(stored, 2)):
        for one, other in zip(alone, others, strict=True):
            assert_same(on_device(other, CPU), on_device(one, CPU), levels=0)
            assert fingerprints_on(one, "cpu") == fingerprints_on(other, "cpu")
    ranks = [batches_of(here, 0, rank, 2) for rank in range(2)]
    for step, one in enumerate(alone):
        dealt = [on_device(batches[step], CPU) for batches in ranks]
        assert torch.equal(torch.cat([d.images for d in dealt]), on_device(one, CPU).images)
        numbers = [fingerprints_on(batches[step], "cpu") for batches in ranks]
        assert [*chain.from_iterable(numbers)] == fingerprints_on(one, "cpu")


def test_a_fingerprint_is_of_pixels_place_and_kind_of_device(small_set: Path) -> None:
    dataset = CompactDataset(TrainDataset(read_labels(small_set / "train_label.txt"), PLAIN, TargetConfig(), 3))
    items = [dataset[(0, index)] for index in range(3)]
    batch = collate_compact(items)
    numbers = fingerprints_on(batch, "cpu")
    assert len(set(numbers)) == 3
    assert fingerprints_on(collate_compact(items[::-1]), "cpu") == numbers[::-1]
    assert set(fingerprints_on(batch, "cuda")).isdisjoint(numbers)
    batch.sources[1, 2] += 2.0**-10
    batch.pixels[0] ^= 1
    assert [a == b for a, b in zip(fingerprints_on(batch, "cpu"), numbers, strict=True)] == [False, False, True]


def test_nothing_waits_for_the_device(small_set: Path) -> None:
    """A meta device computes shapes and has no values: whoever asks for one fails."""
    dataset = CompactDataset(TrainDataset(read_labels(small_set / "train_label.txt"), PLAIN, TargetConfig(), 3))
    batch = collate_compact([dataset[(0, index)] for index in range(4)])
    assert batch.num_around
    made = on_device(batch, torch.device("meta"))
    assert made.images.shape == (4, 3, 64, 96)
    assert made.targets.threshold_map.shape == (4, 64, 96)


def test_without_maps_there_are_only_pictures(small_set: Path) -> None:
    samples = read_labels(small_set / "train_label.txt")
    with_maps, without = (CompactDataset(TrainDataset(samples, PLAIN, t, 3)) for t in (TargetConfig(), None))
    batch = collate_compact([without[(0, 1)]])
    assert torch.equal(pictures(batch, CPU), pictures(collate_compact([with_maps[(0, 1)]]), CPU))
    with pytest.raises(ValueError, match="dataset with maps"):
        on_device(batch, CPU)
    with pytest.raises(ValueError, match="one size"):
        collate_compact([])


def losses(cfg: RecipeConfig) -> list[float]:
    training = build_training(cfg, build_model(cfg), CPU)
    optimizer = build_adam(list(training.model.parameters()), cfg.optim)
    found: list[float] = []
    fit(training, optimizer, RunState(), lambda report: found.append(report.metrics["loss.total"]))
    return found


def test_a_run_on_the_device_is_that_of_the_loaders(small_set: Path) -> None:
    values = {
        **{"data.train": f"{small_set}/train_label.txt", "data.val": f"{small_set}/val_label.txt"},
        **{"data.batch_size": 3, "data.num_workers": 0, "optim.epochs": 2, "optim.lr": 1e-3, "run.threads": 1},
        **{"data.augment.crop_width": 64, "data.augment.crop_height": 64, "eval.every_epochs": 9},
        **{"student.detector.backbone.scale": 0.35, "eval.resize.limit_side_len": 64, "eval.resize.limit_type": "max"},
    }
    cfg = with_values(StudentConfig(), values, "test")
    loaded, drawn = losses(cfg), losses(with_values(cfg, {"data.on_device": True}, "test"))
    assert drawn == losses(with_values(cfg, {"data.on_device": True}, "test"))
    np.testing.assert_allclose(drawn, loaded, rtol=2e-3 * LEVELS)  # a level in few pixels, and what steps make of it


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same(small_set: Path) -> None:
    dataset = CompactDataset(TrainDataset(read_labels(small_set / "train_label.txt"), PLAIN, TargetConfig(), 3))
    batch = collate_compact([dataset[(0, index)] for index in range(6)])
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = on_device(batch.pin_memory(), torch.device("cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_same(made.to("cpu"), on_device(batch, CPU))
