"""Pictures warped and maps drawn where the nets are: a `CompactBatch` becomes the `Batch` that loaders would have made.

Maps are those of `targets.draw_targets`, bit for bit: areas come filled, and distances are computed by the same
operations in the same order and precision. A picture may differ from OpenCV's by a level where its rounding differs.

All windows of all pictures are done together, in blocks whose number the batch knows. Nothing here asks the device
for a value, so that nobody waits for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ocr_ray.data.batch import Batch, Targets
from ocr_ray.data.border import FAR
from ocr_ray.data.compact import CompactBatch, Loaded

BLOCK = 2**21
"""Pixels computed at once: some 400 MB on the device at most, which a training step takes anyway."""


def on_device(loaded: Loaded, device: torch.device) -> Batch:
    """What a training step takes: images uint8 `(N, 3, H, W)`, targets float32 `(N, H, W)`, on `device`.

    Raises: ValueError for a batch without maps.
    """
    if isinstance(loaded, Batch):
        return loaded.to(device)
    if loaded.targets is None:
        raise ValueError("on_device: expected a batch of a dataset with maps")
    areas = _filled(loaded, device)
    targets = Targets(
        shrink_map=areas[0],
        shrink_mask=1 - areas[1],
        threshold_map=_threshold_map(loaded, device),
        threshold_mask=areas[2],
    )
    return Batch(pictures(loaded, device), targets, loaded.keys, loaded.paths, loaded.failures, loaded.teacher)


def pictures(loaded: Loaded, device: torch.device) -> Tensor:
    """What the nets see: uint8 `(N, 3, H, W)` BGR on `device`; bilinear, black where a picture does not reach."""
    if isinstance(loaded, Batch):
        return loaded.images.to(device, non_blocking=True)
    height, width = loaded.size
    pixels, sources = _moved(loaded.pixels, device).view(-1, 3), _moved(loaded.sources, device)
    together = max(1, BLOCK // (height * width))
    images = [
        _warped(pixels, sources[first : first + together], height, width) for first in range(0, len(sources), together)
    ]
    return torch.cat(images).permute(0, 3, 1, 2).contiguous()


def _warped(pixels: Tensor, sources: Tensor, height: int, width: int) -> Tensor:
    """`(N, H, W, 3)` uint8 by the rows of `CompactBatch.sources`."""
    m00, m01, m02, m10, m11, m12, columns, rows, shown_width, shown_height, is_cut, begin = sources.T[:, :, None, None]
    at_x = torch.arange(width, dtype=torch.float64, device=sources.device)
    at_y = torch.arange(height, dtype=torch.float64, device=sources.device)[:, None]
    shown = (at_x < shown_width) & (at_y < shown_height)
    left, right, x, next_x = _taps(m00 * at_x + (m01 * at_y + m02), columns, is_cut, shown)
    above, below, y, next_y = _taps(m10 * at_x + (m11 * at_y + m12), rows, is_cut, shown)
    y, next_y = (begin + y * columns).long(), (begin + next_y * columns).long()
    x, next_x = x.long(), next_x.long()
    total = _weighted(pixels, y + x, above * left)
    total += _weighted(pixels, y + next_x, above * right)
    total += _weighted(pixels, next_y + x, below * left)
    total += _weighted(pixels, next_y + next_x, below * right)
    return total.round_().clamp_(0, 255).to(torch.uint8)


def _taps(at: Tensor, size: Tensor, is_cut: Tensor, shown: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights (float32) and places (float64) of the two pixels beside each place `at`, along one axis."""
    at = torch.where(is_cut > 0, torch.minimum(at.clamp(min=0), size - 1), at)
    before = at.floor()
    after = before + 1
    share = (at - before).float()
    last = size - 1
    return (
        (1 - share) * (shown & (before >= 0) & (before <= last)),
        share * (shown & (after >= 0) & (after <= last)),
        torch.minimum(before.clamp(min=0), last),
        torch.minimum(after.clamp(min=0), last),
    )


def _weighted(pixels: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    chosen = pixels.index_select(0, places.flatten()).view(*places.shape, 3)
    return chosen.float().mul_(weights.unsqueeze(-1))


def _filled(batch: CompactBatch, device: torch.device) -> Tensor:
    """`(3, N, H, W)` float32: 1 in the areas of each map."""
    height, width = batch.size
    size = len(batch.keys) * height * width
    maps = torch.zeros(3 * size + 1, device=device)  # one more, for what is not filled
    filled, areas = _moved(batch.filled, device), _moved(batch.areas, device)
    for window in _windows(areas[1:], batch.filled.numel(), width):
        place = areas[0].index_select(0, window.owner) * size + window.place
        maps.index_fill_(0, place.masked_fill_(filled[window.first : window.last] == 0, 3 * size), 1.0)
    return maps[:-1].view(3, -1, height, width)


def _threshold_map(batch: CompactBatch, device: torch.device) -> Tensor:
    """`(N, H, W)` float32: the highest of what the edges give, `thresh_max` on them, `thresh_min` a reach away."""
    assert batch.targets is not None
    height, width = batch.size
    low, span = np.float32(batch.targets.thresh_min), np.float32(batch.targets.thresh_max - batch.targets.thresh_min)
    raised = torch.full((len(batch.keys) * height * width,), float(low), device=device)
    edges, around = _moved(batch.edges, device), _moved(batch.around, device)
    left_out = torch.zeros(batch.num_around, dtype=torch.bool, device=device)
    left_out.index_fill_(0, _moved(batch.doubled, device), True)
    for window in _windows(around[2:], batch.num_around, width):
        first_x, first_y = around[:2].index_select(1, window.owner)
        squares = _squares(first_x + window.column, first_y + window.row, edges.index_select(1, window.owner))
        distance = squares.clamp_(max=1).sqrt_().float()
        value = (1 - distance) * float(span) + float(low)
        value.masked_fill_(left_out[window.first : window.last], float(low))
        raised.scatter_reduce_(0, window.place, value, "amax")
    return raised.view(-1, height, width)


def _squares(xs: Tensor, ys: Tensor, values: Tensor) -> Tensor:
    """As `border._squares`, of one pixel and one edge each: `(P,)` places, `(8, P)` values."""
    ax, ay, bx, by, ux, uy, length2, reach2 = values
    dx, dy = xs - ax, ys - ay
    across = dx * uy - dy * ux
    across *= across
    dx *= dx
    dy *= dy
    outside = FAR * (dx + (xs - bx) ** 2) + FAR * (dy + (ys - by) ** 2 - length2)
    return torch.minimum(torch.maximum(across, outside), dx / reach2 + dy / reach2)


@dataclass(frozen=True, eq=False)
class _Block:
    """Pixels of windows from number `first` to before `last`, `(P,)` each."""

    first: int
    last: int
    owner: Tensor
    """Which window it is of."""
    row: Tensor
    column: Tensor
    """In the window."""
    place: Tensor
    """In the maps."""


def _windows(table: Tensor, number: int, width: int) -> Iterator[_Block]:
    """The first `number` pixels of windows by the last three rows of a table; `width` is that of the maps."""
    begins, columns, starts = table
    for first in range(0, number, BLOCK):
        last = min(first + BLOCK, number)
        numbers = torch.arange(first, last, device=table.device)
        owner = torch.searchsorted(starts, numbers, right=True) - 1
        row, column = _divided(numbers - starts.index_select(0, owner), columns.index_select(0, owner))
        yield _Block(first, last, owner, row, column, begins.index_select(0, owner) + row * width + column)


def _divided(number: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
    whole = torch.div(number, by, rounding_mode="floor")
    return whole, number - whole * by


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)
