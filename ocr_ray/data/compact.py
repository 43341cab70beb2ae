"""Samples whose pictures are yet to be warped and whose maps are yet to be drawn: what a device is handed for that.

A loader decodes, draws the geometry, and fills each area of a map in a window of the area's own extent, since a device
would have to imitate OpenCV's rule for border pixels. All of a batch then travels in two flat buffers of bytes and four
small tables; `on_device` makes of them what `batch.collate` would have made.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ocr_ray.data.augment import Source
from ocr_ray.data.batch import Batch, Failure, Key
from ocr_ray.data.border import Edges, Window, edges_of
from ocr_ray.data.dataset import TrainDataset
from ocr_ray.data.targets import Filled, Outline, TargetConfig, TargetShapes, target_shapes, window_of

SHRINK_MAP, SHRINK_MASK, THRESHOLD_MASK = range(3)
"""Maps that areas are filled into; in the shrink mask they are what does not count."""
PLACED = 11
"""Columns of `CompactBatch.sources` that are of the picture alone; the last one is of its place in the batch."""
ALIGNED = 24
"""A picture begins at a multiple of so many bytes: with a whole pixel, and with a word of eight."""
FINEST = 2.0**-32
"""Matrices are rounded to multiples of this: other processors compute other last digits, and a teacher's answer is
looked up by what was handed on."""
NO_SHAPES = TargetShapes([], [], [], [], np.zeros(0, np.bool_))
BLACK = np.zeros((1, 1, 3), np.uint8)


@dataclass(frozen=True, eq=False)
class Area:
    """Pixels of a map's `window`, `(h, w)` uint8: 1 in the area, 0 beside it."""

    map: int
    window: Window
    filled: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class CompactItem:
    """One sample. The rest is as in `Item`."""

    source: Source
    shown: tuple[int, int]
    """Width and height of the part of what the net sees that shows the crop; the rest is black."""
    size: tuple[int, int]
    """`(height, width)` of what the net sees."""
    targets: TargetConfig | None
    """How the maps are drawn; None: there are none."""
    areas: list[Area]
    outlines: list[Outline]
    key: Key
    path: str
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, eq=False)
class CompactBatch:
    """N samples; tensors as `collate_compact` lays them out. The rest is as in `Batch` and `CompactItem`.

    Pixels of windows are numbered over all windows of a kind, one after another, row by row. A table has a column for
    each window, and says in its last three rows which pixel of the batch's maps, `(N, H, W)`, is the window's first
    one, how many columns it has, and the number of its first pixel.
    """

    pixels: Tensor
    """uint8: pictures one after another, three bytes a pixel."""
    sources: Tensor
    """`(N, 12)` float64: the matrix from centres of what the net sees to centres of the picture, row by row; width and
    height of the picture; width and height of what shows it; 1 where it goes on as its border does, 0 where black lies
    beyond it; at which pixel it begins."""
    filled: Tensor
    """uint8: the pixels of all areas."""
    areas: Tensor
    """`(4, A)` int64: map, and the last three rows."""
    edges: Tensor
    """`(8, E)` float64: `border.Edges.values` of the edges that have pixels around them."""
    around: Tensor
    """`(5, E)` int64: first column and first row around an edge, and the last three rows."""
    doubled: Tensor
    """int64: which of the pixels around edges do not count, see `border.Edges.doubled`."""
    num_around: int
    """Pixels around all edges."""
    size: tuple[int, int]
    targets: TargetConfig | None
    keys: tuple[Key, ...]
    paths: tuple[str, ...]
    failures: tuple[Failure, ...]
    teacher: Tensor | None = None

    def pin_memory(self) -> "CompactBatch":
        """For `DataLoader(pin_memory=True)`: the same batch in page-locked memory."""
        return replace(
            self,
            pixels=self.pixels.pin_memory(),
            sources=self.sources.pin_memory(),
            filled=self.filled.pin_memory(),
            areas=self.areas.pin_memory(),
            edges=self.edges.pin_memory(),
            around=self.around.pin_memory(),
            doubled=self.doubled.pin_memory(),
        )


Loaded = Batch | CompactBatch
"""What a loader may yield."""


class CompactDataset(Dataset[CompactItem]):
    """The samples of `dataset`, from the same draws, with the work on pixels and maps left to a device."""

    def __init__(self, dataset: TrainDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, key: Key) -> CompactItem:
        """The sample of a key. Raises: DataError as `TrainDataset.drawn`."""
        sample, cfg = self._dataset.drawn(key), self._dataset.targets
        to = sample.augmentation
        size = to.crop_height, to.crop_width
        shapes = NO_SHAPES if cfg is None else target_shapes(*sample.shown(), *size, cfg)
        return CompactItem(
            to.source(sample.image),
            to.filled,
            size,
            cfg,
            areas_of(shapes, *size),
            shapes.outlines,
            sample.key,
            sample.path,
            sample.failures,
        )


def collate_compact(items: Sequence[CompactItem]) -> CompactBatch:
    """Lays samples of one size into one batch. Raises: ValueError without items, or when sizes differ."""
    if len({item.size for item in items}) != 1:
        raise ValueError(f"collate_compact: expected samples of one size, found {[item.size for item in items]}")
    size, targets = items[0].size, items[0].targets
    pixels, begins = _joined_pictures([item.source.pixels if item.source.pixels.size else BLACK for item in items])
    areas, filled = _joined_areas([item.areas for item in items], size)
    edges, around, doubled, num_around = _joined_edges([item.outlines for item in items], size)
    return CompactBatch(
        pixels=pixels,
        sources=_sources(items, begins),
        filled=filled,
        areas=areas,
        edges=edges,
        around=around,
        doubled=doubled,
        num_around=num_around,
        size=size,
        targets=targets,
        keys=tuple(item.key for item in items),
        paths=tuple(item.path for item in items),
        failures=tuple(failure for item in items for failure in item.failures),
    )


def areas_of(shapes: TargetShapes, height: int, width: int) -> list[Area]:
    """What is filled into the maps of a picture of that size."""
    areas = [
        _area(number, corners, window_of(corners, height, width))
        for number, all_corners in ((SHRINK_MAP, shapes.kernels), (SHRINK_MASK, shapes.unseen))
        for corners in all_corners
    ]
    areas += [
        _area(THRESHOLD_MASK, corners, outline.window)
        for corners, outline in zip(shapes.bands, shapes.outlines, strict=True)
    ]
    return [area for area in areas if area is not None]


def _area(number: int, corners: Filled, window: Window | None) -> Area | None:
    """Filled in the window as it would be in the picture: where both end, both are cut at the same line."""
    if window is None:
        return None
    x0, y0, x1, y1 = window
    filled = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillPoly(filled, [corners], (1,), offset=(-x0, -y0))
    return Area(number, window, filled)


def _joined_pictures(pictures: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, list[int]]:
    """Pictures in one buffer, and at which of its pixels each begins."""
    begins, size = [], 0
    for picture in pictures:
        begins.append(size // 3)
        size += -(-picture.size // ALIGNED) * ALIGNED
    flat = _bytes(size)
    buffer = flat.numpy()
    for begin, picture in zip(begins, pictures, strict=True):
        end = 3 * begin + picture.size
        buffer[3 * begin : end].reshape(picture.shape)[:] = picture
        buffer[end : -(-end // ALIGNED) * ALIGNED] = 0
    return flat, begins


def _sources(items: Sequence[CompactItem], begins: Sequence[int]) -> Tensor:
    matrices = np.zeros((len(items), 3, 3))
    matrices[:, :2] = [item.source.matrix for item in items]
    matrices[:, 2, 2] = 1
    back = np.rint(np.linalg.inv(matrices)[:, :2] / FINEST) * FINEST + 0.0  # no -0, which has other bits
    rest = [
        (*(item.source.pixels.shape[1::-1] if item.source.pixels.size else (1, 1)), *item.shown, item.source.is_cut, at)
        for item, at in zip(items, begins, strict=True)
    ]
    return torch.from_numpy(np.concatenate([back.reshape(-1, 6), np.array(rest, np.float64)], axis=1))


def _joined_areas(areas: Sequence[Sequence[Area]], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    height, width = size
    table: list[tuple[int, int, int, int]] = []
    at = 0
    for n, of_one in enumerate(areas):
        for area in of_one:
            x0, y0, x1, _ = area.window
            table.append((area.map, (n * height + y0) * width + x0, x1 - x0, at))
            at += area.filled.size
    filled = _bytes(at)
    if at:
        np.concatenate([area.filled.ravel() for of_one in areas for area in of_one], out=filled.numpy())
    return torch.from_numpy(np.array(table, np.int64).reshape(-1, 4).T.copy()), filled


def _joined_edges(outlines: Sequence[Sequence[Outline]], size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, int]:
    """As `CompactBatch` has them: `edges`, `around`, `doubled`, `num_around`."""
    height, width = size
    every = [outline for of_one in outlines for outline in of_one]
    if not every:
        none = torch.zeros(0, dtype=torch.int64)
        return torch.zeros(8, 0, dtype=torch.float64), none.reshape(5, 0), none, 0
    edges = edges_of([o.polygon for o in every], [o.reach for o in every], [o.window for o in every])
    picture = np.repeat(np.arange(len(outlines)), [len(of_one) for of_one in outlines])[edges.owner]
    x0, y0, x1, y1 = edges.around.T
    columns, rows = np.maximum(x1 - x0, 0), np.maximum(y1 - y0, 0)
    pixels = columns * rows
    starts = np.cumsum(pixels) - pixels
    around = np.stack([x0, y0, (picture * height + y0) * width + x0, columns, starts])
    near = pixels > 0
    return (
        torch.from_numpy(np.ascontiguousarray(edges.values[near].T)),
        torch.from_numpy(np.ascontiguousarray(around[:, near])),
        torch.from_numpy(_doubled(edges, starts)),
        int(pixels.sum()),
    )


def _doubled(edges: Edges, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of the pixels around the edges of an outline that lie where a vertex of it is given twice."""
    found = [np.zeros(0, np.int64)]
    for owner, x, y in edges.doubled.tolist():
        x0, y0, x1, y1 = edges.around.T
        its = (edges.owner == owner) & (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)
        found.append((starts + (y - y0) * (x1 - x0) + x - x0)[its])
    return np.concatenate(found)


def _bytes(number: int) -> Tensor:
    """Room for so many bytes; in a loader's process where the one that wants them can read them without a copy."""
    if get_worker_info() is None:
        return torch.empty(number, dtype=torch.uint8)
    shared = torch.UntypedStorage._new_shared(number)  # type: ignore[no-untyped-call]  # as `default_collate` has it
    return torch.empty(0, dtype=torch.uint8).set_(shared)
