"""Distance to text outlines, from which the threshold map falls off: all outlines of a picture at once.

A picture may have hundreds of small quads, and a NumPy call costs a microsecond however few the pixels. So the edges
of all outlines whose surroundings are about the same size are computed together.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FAR = 2.0**60
"""Turns "above 0" into "further than anything else" without a mask; a power of two, so that 0 stays 0."""
CELL = 8
"""Edges are computed together when the sides of their surroundings are the same in cells of so many pixels."""
BLOCK = 2**16
"""Pixels computed at once, so that they stay in the processor's cache."""

Window = tuple[int, int, int, int]
"""First column and row, and one past the last ones."""
Squares = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Edges:
    """The edges of several outlines, one after another, `(E,)` each unless said."""

    owner: NDArray[np.int64]
    """Which of the outlines it is of."""
    around: NDArray[np.int64]
    """`(E, 4)`: the pixels, as a `Window`, in which it may be nearer than its outline's reach; empty for many."""
    values: NDArray[np.float64]
    """`(E, 8)`: `ax, ay, bx, by`, the unit vector along it over the reach, the squares of its length and the reach."""
    doubled: NDArray[np.int64]
    """`(D, 3)`: pixels that are not near their outline, since one of its vertices that is given twice lies there: which
    outline, x, y."""


def edges_of(polygons: Sequence[NDArray[np.float64]], reaches: Sequence[float], windows: Sequence[Window]) -> Edges:
    """The edges of outlines that are to be looked at in a window of the picture each.

    Args: polygons `(K, 2)`, at least one; reaches above 0; windows not empty.
    """
    owner = np.array([i for i, polygon in enumerate(polygons) for _ in range(len(polygon))])
    a = np.concatenate(polygons)
    b = np.concatenate([polygon[[*range(1, len(polygon)), 0]] for polygon in polygons])
    reach = np.array(reaches)[owner]
    window = np.array(windows)[owner]
    edge = b - a
    squared = (edge * edge).sum(axis=1)
    unit = edge / (reach * np.sqrt(np.where(squared > 0, squared, 1)))[:, None]
    far = reach[:, None]
    around = _around(np.minimum(a, b) - far, np.maximum(a, b) + far, window)
    twice = np.flatnonzero(squared == 0)
    around[twice] = 0
    whole = (a[twice] % 1 == 0) & (a[twice] >= window[twice, :2]) & (a[twice] < window[twice, 2:])
    twice = twice[whole.all(axis=1)]
    doubled = np.column_stack([owner[twice], a[twice].astype(np.int64)])
    return Edges(owner, around, np.column_stack([a, b, unit, squared, reach * reach]), doubled)


def outline_distances(
    polygons: Sequence[NDArray[np.float64]], reaches: Sequence[float], windows: Sequence[Window]
) -> list[NDArray[np.float32]]:
    """For each polygon the distance to its nearest edge, in units of its reach and cut at 1, in the pixels of a window.

    An edge's distance is the perpendicular one where the pixel sees the edge under an obtuse angle (it lies in the
    circle around the edge), else that to the nearer end. Near the ends of a short edge this is more than the distance
    to the segment; it is the reference's rule. So is that a vertex given twice has none in its own pixel: 1.

    The nearest end counts within the circle too, where the perpendicular is never longer.
    Args: polygons `(K, 2)`; reaches above 0; windows not empty. Returns: `(H, W)` each, of the window's size.
    Source: reference name `MakeBorderMap._distance`.
    """
    nearest = [np.ones((y1 - y0, x1 - x0)) for x0, y0, x1, y1 in windows]
    if not polygons:
        return []
    edges = edges_of(polygons, reaches, windows)
    _lower(nearest, windows, edges.owner.tolist(), edges.around, edges.values)
    for i, x, y in edges.doubled.tolist():
        x0, y0, _, _ = windows[i]
        nearest[i][y - y0, x - x0] = 1
    return [np.sqrt(squares, out=squares).astype(np.float32) for squares in nearest]


def _around(low: NDArray[np.float64], high: NDArray[np.float64], window: NDArray[np.int64]) -> NDArray[np.int64]:
    """The pixels `(N, 4)` of each window from `low` to before `high`; beyond nothing is nearer than a reach."""
    first, last = window[:, :2], window[:, 2:]
    return np.concatenate(
        [np.clip(np.ceil(low), first, last), np.clip(np.ceil(high), first, last)],
        axis=1,
        dtype=np.int64,
        casting="unsafe",
    )


def _lower(
    nearest: list[Squares],
    windows: Sequence[Window],
    owner: list[int],
    around: NDArray[np.int64],
    values: NDArray[np.float64],
) -> None:
    """Lowers `nearest` to what the edges with these `values` give in the pixels `around` them."""
    bins: dict[tuple[int, int], list[int]] = defaultdict(list)
    places = around.tolist()
    for i, (x0, y0, x1, y1) in enumerate(places):
        if x0 < x1 and y0 < y1:
            bins[-(-(x1 - x0) // CELL), -(-(y1 - y0) // CELL)].append(i)
    for (columns, rows), members in bins.items():
        width, height = CELL * columns, CELL * rows
        together = max(1, BLOCK // (width * height))
        for start in range(0, len(members), together):
            chosen = members[start : start + together]
            xs = around[chosen, 0, None] + np.arange(width)
            ys = around[chosen, 1, None] + np.arange(height)
            for i, block in zip(chosen, _squares(xs, ys, values[chosen]), strict=True):
                x0, y0, x1, y1 = places[i]
                left, top, _, _ = windows[owner[i]]
                part = nearest[owner[i]][y0 - top : y1 - top, x0 - left : x1 - left]
                np.minimum(part, block[: y1 - y0, : x1 - x0], out=part)


def _squares(xs: NDArray[np.int64], ys: NDArray[np.int64], values: NDArray[np.float64]) -> Squares:
    """Squared distances `(N, H, W)`, in units of reach, to N edges within their circles, elsewhere to their first ends.

    Values `(N, 8)` as in `Edges`. The other end is the first one of the next edge.
    Squares are sums of a part in x and a part in y: those are made as rows and columns, and only sums, one square,
    maximum and minimum are left for the pixels.
    """
    ax, ay, bx, by, ux, uy, length2, reach2 = values.T[:, :, None]
    dx, dy = xs - ax, ys - ay
    across = (dx * uy)[:, None, :] - (dy * ux)[:, :, None]
    across *= across
    dx *= dx
    dy *= dy
    # In pixels, not in units of reach: with whole coordinates a pixel lies exactly on the circle, or it does not.
    outside_x = FAR * (dx + (xs - bx) ** 2)
    outside_y = FAR * (dy + (ys - by) ** 2 - length2)
    np.maximum(across, outside_x[:, None, :] + outside_y[:, :, None], out=across)
    dx /= reach2
    dy /= reach2
    return np.minimum(across, dx[:, None, :] + dy[:, :, None], out=across)
