"""What a training step receives: pictures, their target maps, and the names of where they came from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import default_collate

Key = tuple[int, int]
"""`(epoch, index)`: which sample, drawn in which epoch."""


@dataclass(frozen=True)
class Targets:
    """The four maps that the DB loss compares with, `(N, H, W)` each (`(H, W)` before collation).

    On their way out of the data workers the shrink map and the masks are uint8 0 or 1, a fourth of the bytes;
    `to` makes all four float32, so a step calls it once, on the CPU as well.
    """

    shrink_map: Tensor
    """1 inside a text's shrunk kernel, else 0."""
    shrink_mask: Tensor
    """0 where the shrink map does not count (ignored or too small text), else 1."""
    threshold_map: Tensor
    """float32: `thresh_max` on a text's outline, falling to `thresh_min` a shrink distance away from it."""
    threshold_mask: Tensor
    """1 where the threshold map counts (text grown by its shrink distance), else 0."""
    teacher: Tensor | None = None
    """Bool: where a teacher sees text, as `losses.dila.teacher_target` has it. None where the nets hold their teacher
    themselves, or learn without one."""

    def to(self, device: torch.device | str) -> "Targets":
        """All four maps as float32 on `device`; the copy is asynchronous from pinned memory."""

        def widened(maps: Tensor) -> Tensor:
            return maps.to(device, non_blocking=True).float()

        return Targets(
            widened(self.shrink_map),
            widened(self.shrink_mask),
            widened(self.threshold_map),
            widened(self.threshold_mask),
            None if self.teacher is None else self.teacher.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "Targets":
        """The same maps in page-locked memory."""
        return Targets(
            self.shrink_map.pin_memory(),
            self.shrink_mask.pin_memory(),
            self.threshold_map.pin_memory(),
            self.threshold_mask.pin_memory(),
        )


@dataclass(frozen=True)
class Failure:
    """A sample that could not be made and that another one stands in for."""

    key: Key
    path: str
    reason: str


@dataclass(frozen=True)
class Item:
    """One training sample: `image` `(3, H, W)` uint8 BGR, `targets` `(H, W)` each."""

    image: Tensor
    targets: Targets
    key: Key
    path: str
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class Batch:
    """`images` `(N, 3, H, W)` uint8 BGR as loaded; `keys` are what was asked for, `paths` the files that were read.

    `failures` lists each sample that broke while this batch was made: its place was taken by another one.
    """

    images: Tensor
    targets: Targets
    keys: tuple[Key, ...]
    paths: tuple[str, ...]
    failures: tuple[Failure, ...]
    teacher: Tensor | None = None
    """A stored teacher's answers, a bit a pixel: `(N, ceil(H * W / 8))` uint8. None where there is no store."""

    def to(self, device: torch.device | str) -> "Batch":
        """Images (still uint8) and targets (float32) on `device`."""
        return replace(self, images=self.images.to(device, non_blocking=True), targets=self.targets.to(device))

    def pin_memory(self) -> "Batch":
        """For `DataLoader(pin_memory=True)`: the same batch in page-locked memory."""
        return replace(self, images=self.images.pin_memory(), targets=self.targets.pin_memory())


def collate(items: Sequence[Item]) -> Batch:
    """Stacks samples of one size into a batch. Raises: ValueError without items, RuntimeError when sizes differ."""
    if not items:
        raise ValueError("collate: a batch needs at least one sample")
    targets = [item.targets for item in items]
    return Batch(
        images=_stacked([item.image for item in items]),
        targets=Targets(
            _stacked([t.shrink_map for t in targets]),
            _stacked([t.shrink_mask for t in targets]),
            _stacked([t.threshold_map for t in targets]),
            _stacked([t.threshold_mask for t in targets]),
        ),
        keys=tuple(item.key for item in items),
        paths=tuple(item.path for item in items),
        failures=tuple(failure for item in items for failure in item.failures),
    )


def _stacked(tensors: list[Tensor]) -> Tensor:
    stacked = default_collate(tensors)  # in a loader's process straight into the memory that it shares
    assert isinstance(stacked, Tensor)
    return stacked
