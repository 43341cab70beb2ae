import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ocr_ray.data.augment import AugmentConfig
from ocr_ray.data.copy_paste import CopyPasteConfig
from ocr_ray.data.dataset import TrainDataset
from ocr_ray.data.decoded import TOUCH_S, UNUSED_S, DecodedStore, decoded_store
from ocr_ray.data.images import read_image, write_image
from ocr_ray.data.labels import read_labels
from ocr_ray.data.memory import keep_freed_memory
from ocr_ray.data.reduced import Reduction, decode_file
from ocr_ray.data.targets import TargetConfig
from ocr_ray.errors import DataError

REDUCTIONS: tuple[Reduction, ...] = (1, 2, 4, 8)


@pytest.fixture
def store(tmp_path: Path) -> DecodedStore:
    (tmp_path / "memory").mkdir()
    return decoded_store(64, tmp_path / "memory")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    write_image(path, np.random.default_rng(1).integers(0, 256, (60, 90, 3), np.uint8))
    return path


def entries(store: DecodedStore) -> list[Path]:
    assert store.folder is not None
    return sorted(store.folder.iterdir())


def scramble(path: Path) -> None:
    """Other bytes, same size, same times: who still gives the picture has it from the store."""
    stat = path.stat()
    path.write_bytes(bytes(stat.st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_pixels_are_those_of_the_file_from_the_first_time_on(store: DecodedStore, photo: Path) -> None:
    expected = [decode_file(photo, reduction) for reduction in REDUCTIONS]
    whole = read_image(photo)
    for _ in range(2):
        for reduction, pixels in zip(REDUCTIONS, expected, strict=True):
            kept = store.decode(photo, reduction)
            assert kept is not None
            np.testing.assert_array_equal(kept, pixels)
        np.testing.assert_array_equal(store.read(photo), whole)
        scramble(photo)
    assert len(entries(store)) == len(REDUCTIONS)


def test_a_file_that_changes_is_decoded_again(store: DecodedStore, photo: Path) -> None:
    store.read(photo)
    write_image(photo, np.zeros((60, 90, 3), np.uint8))
    np.testing.assert_array_equal(store.read(photo), read_image(photo))


@pytest.mark.parametrize("harm", [b"", b"\x93NUMPY", b"nonsense" * 40, None])
def test_a_broken_or_vanished_entry_is_decoded_again_and_replaced(
    store: DecodedStore, photo: Path, harm: bytes | None
) -> None:
    expected = store.read(photo).copy()
    (entry,) = entries(store)
    sound = entry.read_bytes()
    entry.unlink()
    if harm is not None:
        entry.write_bytes(harm)
    np.testing.assert_array_equal(store.read(photo), expected)
    assert entry.read_bytes() == sound
    entry.unlink()
    entry.write_bytes(sound[:-1])
    np.testing.assert_array_equal(store.read(photo), expected)
    assert entry.read_bytes() == sound


def test_nothing_is_kept_beyond_the_budget(tmp_path: Path, photo: Path) -> None:
    full = DecodedStore(tmp_path, budget=read_image(photo).nbytes - 1)
    before = sorted(tmp_path.iterdir())
    np.testing.assert_array_equal(full.read(photo), read_image(photo))
    assert sorted(tmp_path.iterdir()) == before


def test_no_budget_and_no_shared_memory_keep_nothing(tmp_path: Path, photo: Path) -> None:
    for off in (decoded_store(0, tmp_path), decoded_store(64, tmp_path / "absent")):
        assert off.folder is None
        np.testing.assert_array_equal(off.read(photo), read_image(photo))


def test_a_folder_that_goes_away_does_no_harm(store: DecodedStore, photo: Path) -> None:
    assert store.folder is not None
    store.folder.rmdir()
    np.testing.assert_array_equal(store.read(photo), read_image(photo))


def test_who_starts_drops_what_is_long_unused(store: DecodedStore, photo: Path) -> None:
    store.decode(photo, 1)
    (old,) = entries(store)
    store.decode(photo, 2)
    long_ago = time.time() - UNUSED_S - 1
    os.utime(old, (long_ago, long_ago))
    assert store.folder is not None
    decoded_store(64, store.folder.parent)
    assert old not in entries(store)
    assert len(entries(store)) == 1


def test_use_keeps_an_entry_young(store: DecodedStore, photo: Path) -> None:
    store.read(photo)
    (entry,) = entries(store)
    before = time.time() - TOUCH_S - 1
    os.utime(entry, (before, before))
    store.read(photo)
    assert entry.stat().st_mtime > before + TOUCH_S


def test_errors_are_those_without_a_store(store: DecodedStore, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    for name in ("broken.jpg", "absent.jpg"):
        with pytest.raises(DataError) as bare:
            read_image(tmp_path / name)
        with pytest.raises(DataError) as stored:
            store.read(tmp_path / name)
        assert str(stored.value) == str(bare.value)
    assert entries(store) == []


def read_all(store: DecodedStore, paths: list[Path]) -> list[int]:
    return [int(store.read(path).sum()) for path in paths]


def test_processes_share_one_store(store: DecodedStore, small_set: Path) -> None:
    paths = sorted((small_set / "train").iterdir())
    expected = [int(read_image(path).sum()) for path in paths]
    with multiprocessing.get_context("forkserver").Pool(3) as pool:
        assert pool.starmap(read_all, [(store, paths)] * 6) == [expected] * 6
    assert len(entries(store)) == len(paths)  # and nothing half-written beside them


@pytest.mark.parametrize("pasting", [False, True])
def test_samples_are_the_same_with_a_store(store: DecodedStore, small_set: Path, pasting: bool) -> None:
    samples = read_labels(small_set / "train_label.txt")
    augment = AugmentConfig(crop_width=64, crop_height=64, copy_paste=CopyPasteConfig(enabled=pasting))
    bare = TrainDataset(samples, augment, TargetConfig(), seed=3)
    stored = TrainDataset(samples, augment, TargetConfig(), 3, store)
    for epoch in range(3):
        for index in range(len(samples)):
            one, other = bare[(epoch, index)], stored[(epoch, index)]
            assert torch.equal(one.image, other.image)
            assert torch.equal(one.targets.threshold_map, other.targets.threshold_map)


def test_freed_memory_stays() -> None:
    resource = pytest.importorskip("resource")
    if not keep_freed_memory():
        pytest.skip("another allocator than glibc's")

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones((960, 960, 3), np.uint8)
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

    # 675 pages each time, were they given back; some call finds its memory where another left it.
    assert min(faults() for _ in range(5)) < 100
