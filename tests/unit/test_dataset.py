import pickle
from collections import Counter
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ocr_ray.data.augment import AugmentConfig
from ocr_ray.data.batch import Batch, Item, Key, collate
from ocr_ray.data.copy_paste import CopyPasteConfig
from ocr_ray.data.dataset import TrainDataset, TrainSampler
from ocr_ray.data.labels import Sample
from ocr_ray.data.targets import TargetConfig
from ocr_ray.errors import DataError

SMALL = AugmentConfig(crop_width=64, crop_height=96)
PASTING = AugmentConfig(crop_width=64, crop_height=96, copy_paste=CopyPasteConfig(enabled=True))


def made(folder: Path, number: int, suffix: str = ".jpg") -> list[Sample]:
    """Pictures of 200x120 pixels with a white word and an ignored one each; the last has none."""
    samples = []
    for i in range(number):
        rng = np.random.default_rng(i)
        image = rng.integers(0, 120, (12, 20, 3)).astype(np.uint8).repeat(10, axis=0).repeat(10, axis=1)
        x, y = rng.integers(5, 100), rng.integers(5, 60)
        word = np.array([[x, y], [x + 80, y + 6], [x + 78, y + 36], [x - 2, y + 30]], np.float32)
        illegible = np.array([[150, 95], [199, 95], [199, 119], [150, 119]], np.float32)
        cv2.fillPoly(image, [word.astype(np.int32)], (255, 255, 255))
        path = folder / f"{i}{suffix}"
        cv2.imwrite(str(path), image)
        polygons = (word, illegible) if i < number - 1 else ()
        samples.append(
            Sample(path, polygons, np.array([False, True][: len(polygons)], bool), ("a", "###")[: len(polygons)])
        )
    return samples


def same(one: Item, other: Item) -> bool:
    return (
        torch.equal(one.image, other.image)
        and torch.equal(one.targets.shrink_map, other.targets.shrink_map)
        and torch.equal(one.targets.shrink_mask, other.targets.shrink_mask)
        and torch.equal(one.targets.threshold_map, other.targets.threshold_map)
        and torch.equal(one.targets.threshold_mask, other.targets.threshold_mask)
        and (one.key, one.path, one.failures) == (other.key, other.path, other.failures)
    )


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_sample_has_the_shapes_and_values_that_it_should(tmp_path: Path, suffix: str) -> None:
    samples = made(tmp_path, 4, suffix)
    dataset = TrainDataset(samples, SMALL, TargetConfig(), seed=0)
    with_text = 0
    for epoch in range(10):
        item = dataset[epoch, 1]
        assert item.image.shape == (3, 96, 64)
        assert item.image.dtype == torch.uint8
        t = item.targets
        assert t.threshold_map.shape == (96, 64)
        assert (t.shrink_map.dtype, t.threshold_map.dtype) == (torch.uint8, torch.float32)
        assert 0.3 <= t.threshold_map.min() <= t.threshold_map.max() <= 0.7 + 1e-6
        assert set(t.shrink_mask.unique().tolist()) <= {0, 1}
        assert (item.key, item.path) == ((epoch, 1), str(samples[1].image))
        kernel = t.shrink_map.bool()
        with_text += bool(kernel.any())
        # The word is white and nothing else is: its kernel lies on white pixels.
        assert (item.image.min(dim=0).values[kernel] > 140).float().mean() > 0.95 or not kernel.any()
    assert with_text >= 7


@pytest.mark.parametrize("cfg", [SMALL, PASTING])
def test_a_sample_depends_on_seed_epoch_and_index_alone(tmp_path: Path, cfg: AugmentConfig) -> None:
    samples = made(tmp_path, 6)
    forwards = TrainDataset(samples, cfg, TargetConfig(), seed=7)
    backwards = pickle.loads(pickle.dumps(TrainDataset(samples, cfg, TargetConfig(), seed=7)))
    keys = [(epoch, index) for epoch in range(2) for index in range(6)]
    first = {key: forwards[key] for key in keys}
    np.random.seed(1)  # noqa: NPY002 - the global generator must not matter
    torch.manual_seed(1)
    second = {key: backwards[key] for key in reversed(keys)}
    assert all(same(first[key], second[key]) for key in keys)
    assert not same(first[0, 1], first[1, 1])
    assert not torch.equal(first[0, 1].image, first[0, 2].image)
    other_seed = TrainDataset(samples, cfg, TargetConfig(), seed=8)
    assert not torch.equal(first[0, 1].image, other_seed[0, 1].image)


def loaded(
    samples: list[Sample], num_workers: int, rank: int = 0, world_size: int = 1, batch_size: int = 4
) -> list[Batch]:
    sampler = TrainSampler(len(samples), None, batch_size, seed=3, rank=rank, world_size=world_size)
    sampler.set_epoch(2)
    loader = DataLoader(
        TrainDataset(samples, PASTING, TargetConfig(), seed=3),
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=num_workers,
        multiprocessing_context="forkserver" if num_workers else None,  # as recipes.build_training has it, and why
    )
    assert len(loader) == len(sampler)
    batches = list(loader)
    assert len(batches) == len(sampler)
    return batches


def pictures(batches: list[Batch]) -> dict[Key, bytes]:
    found: dict[Key, bytes] = {}
    for batch in batches:
        for i, key in enumerate(batch.keys):
            maps = batch.targets.threshold_map[i].numpy().tobytes() + batch.targets.shrink_map[i].numpy().tobytes()
            found[key] = batch.images[i].numpy().tobytes() + maps
    return found


def test_the_number_of_loader_processes_changes_nothing(tmp_path: Path) -> None:
    samples = made(tmp_path, 10)
    here, there = loaded(samples, 0), loaded(samples, 2)
    assert [b.keys for b in here] == [b.keys for b in there]
    assert pictures(here) == pictures(there)
    assert [len(b.keys) for b in here] == [4, 4, 2]


def test_the_number_of_ranks_changes_nothing_where_the_step_is_as_large(tmp_path: Path) -> None:
    samples = made(tmp_path, 10)
    alone = loaded(samples, 0)
    ranks = [loaded(samples, 0, rank=rank, world_size=2, batch_size=2) for rank in (0, 1)]
    for step, batch in enumerate(alone):
        assert batch.keys == tuple(chain.from_iterable(batches[step].keys for batches in ranks))
    assert pictures(alone) == pictures(ranks[0]) | pictures(ranks[1])


def test_a_picture_without_text_is_a_negative(tmp_path: Path) -> None:
    dataset = TrainDataset(made(tmp_path, 4), PASTING, TargetConfig(), seed=0)
    for epoch in range(5):
        item = dataset[epoch, 3]
        assert not item.targets.shrink_map.any()
        assert item.targets.shrink_mask.all()
        assert not item.targets.threshold_mask.any()
        assert item.image.any()


def test_a_picture_with_ignored_text_only_is_kept(tmp_path: Path) -> None:
    (sample, *_) = made(tmp_path, 2)
    ignored = Sample(sample.image, sample.polygons, np.ones(2, bool), ("###", "###"))
    dataset = TrainDataset([ignored], SMALL, TargetConfig(), seed=0)
    items = [dataset[epoch, 0] for epoch in range(10)]
    assert not any(item.targets.shrink_map.any() for item in items)
    assert any((item.targets.shrink_mask == 0).any() for item in items)


def test_words_are_pasted_where_that_is_asked_for(tmp_path: Path) -> None:
    samples = made(tmp_path, 6)
    plain, pasting = (TrainDataset(samples, cfg, TargetConfig(), seed=0) for cfg in (SMALL, PASTING))
    whole = AugmentConfig(
        flip_probability=0,
        rotate_degrees=0,
        scale_min=1,
        scale_max=1,
        max_tries=0,
        crop_width=192,
        crop_height=128,
        copy_paste=CopyPasteConfig(enabled=True),
    )
    counts = []
    for cfg in (whole, AugmentConfig(**{**vars(whole), "copy_paste": CopyPasteConfig()})):
        item = TrainDataset(samples, cfg, TargetConfig(), seed=0)[0, 0]
        counts.append(cv2.connectedComponents(item.targets.shrink_map.numpy())[0] - 1)
    assert counts == [2, 1]
    assert not torch.equal(plain[0, 1].image, pasting[0, 1].image)


@pytest.mark.parametrize("cfg", [SMALL, PASTING])
@pytest.mark.parametrize("content", [None, b"", b"no picture", "cut"])
def test_a_broken_picture_is_replaced_and_named(
    tmp_path: Path, cfg: AugmentConfig, content: bytes | str | None
) -> None:
    samples = made(tmp_path, 8)
    broken = samples[2].image
    if content is None:
        broken.unlink()
    else:
        broken.write_bytes(broken.read_bytes()[:300] if isinstance(content, str) else content)
    dataset = TrainDataset(samples, cfg, TargetConfig(), seed=0)
    item = dataset[5, 2]
    assert item.key == (5, 2)
    assert item.path != str(broken)
    assert item.path in {str(s.image) for s in samples}
    failure = item.failures[0]
    assert (failure.key, failure.path) == ((5, 2), str(broken))
    assert failure.reason.startswith(str(broken))
    assert same(item, TrainDataset(samples, cfg, TargetConfig(), seed=0)[5, 2])
    # What takes its place is that other sample, as it is in this epoch.
    other = [str(s.image) for s in samples].index(item.path)
    assert torch.equal(item.image, dataset[5, other].image)
    assert collate([item]).failures == item.failures


def test_a_broken_donor_is_named_and_the_picture_kept(tmp_path: Path) -> None:
    samples = made(tmp_path, 3)
    samples[1].image.unlink()  # the only one that 0 can take words from
    item = TrainDataset(samples, PASTING, TargetConfig(), seed=0)[0, 0]
    assert item.path == str(samples[0].image)
    assert [f.path for f in item.failures] == [str(samples[1].image)]


def test_when_nothing_can_be_read_the_run_is_told(tmp_path: Path) -> None:
    samples = made(tmp_path, 3)
    for sample in samples:
        sample.image.unlink()
    with pytest.raises(DataError, match=r"0\.jpg: cannot be read.*nor could any of 10 other pictures be read"):
        TrainDataset(samples, SMALL, TargetConfig(), seed=0)[0, 0]


def all_keys(sampler: TrainSampler, epochs: range) -> list[list[Key]]:
    found = []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        found.append([key for batch in batches for key in batch])
    return found


def test_an_epoch_is_a_permutation() -> None:
    sampler = TrainSampler(10, None, 4, seed=1)
    assert [len(batch) for batch in sampler] == [4, 4, 2]
    one, two = all_keys(sampler, range(2))
    assert sorted(one) == [(0, i) for i in range(10)]
    assert sorted(two) == [(1, i) for i in range(10)]
    assert [i for _, i in one] != [i for _, i in two]
    assert all_keys(TrainSampler(10, None, 4, seed=1), range(2)) == [one, two]
    assert all_keys(TrainSampler(10, None, 4, seed=2), range(1)) != [one]


@pytest.mark.parametrize("epoch_size", [3, 7, 10, 25])
def test_short_and_long_epochs_go_through_all_samples_alike(epoch_size: int) -> None:
    keys = list(chain.from_iterable(all_keys(TrainSampler(10, epoch_size, 4, seed=1), range(10))))
    assert len(keys) == 10 * epoch_size
    assert len(set(keys)) == len(keys)  # never the same picture twice
    assert set(Counter(index for _, index in keys).values()) == {epoch_size}


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("num_samples", [1, 2, 10, 13, 24])
def test_every_rank_has_the_same_steps_and_something_in_each(num_samples: int, world_size: int) -> None:
    samplers = [TrainSampler(num_samples, None, 3, seed=0, rank=r, world_size=world_size) for r in range(world_size)]
    steps = [list(sampler) for sampler in samplers]
    assert {len(s) for s in steps} == {len(samplers[0])}
    for batches in zip(*steps, strict=True):
        assert len({len(batch) for batch in batches}) == 1
        assert batches[0]
    dealt = Counter(key for s in steps for batch in s for key in batch)
    assert set(dealt) == {(0, i) for i in range(num_samples)}
    assert sum(dealt.values()) - num_samples == -num_samples % world_size


@pytest.mark.parametrize("wrong", [(0, None, 4), (4, 0, 4), (4, None, 0)])
def test_samplers_of_nothing_are_refused(wrong: tuple[int, int | None, int]) -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        TrainSampler(*wrong, seed=0)
    with pytest.raises(ValueError, match="rank=2"):
        TrainSampler(4, None, 4, seed=0, rank=2, world_size=2)
