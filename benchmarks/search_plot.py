"""The plot of `benchmarks.search`: the best hmean by epochs spent, a panel for each kind of curves and size."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ocr_ray.report.figures import BLUE, GREEN, GREY, ORANGE

if TYPE_CHECKING:
    from benchmarks.search import Outcome

COLOURS = (GREY, BLUE, GREEN, ORANGE)
DASHES = ("-", "--", ":", "-")


def draw(found: "Mapping[str, Mapping[int, Sequence[Outcome]]]", out: Path) -> None:
    """Means over the seeds; of the first and the last method with their quartiles. The first is random search.

    Args: found is by kind of curves and by number of trials; of the methods the first four are drawn.
    """
    sizes = list(dict.fromkeys(size for by_size in found.values() for size in by_size))
    figure = Figure(figsize=(4.2 * len(found), 2.9 * len(sizes) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(sizes), len(found), squeeze=False)
    for column, (name, by_size) in enumerate(found.items()):
        for row, size in enumerate(sizes):
            _panel(panels[row, column], by_size[size][: len(COLOURS)])
            panels[row, column].set_title(f"{name}, {size} trials", fontsize=10)
        panels[-1, column].set_xlabel("epochs spent, all trials together")
    for row in range(len(sizes)):
        panels[row, 0].set_ylabel("best hmean")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(COLOURS), fontsize=9)
    figure.savefig(out, dpi=110)


def _panel(axes: Axes, outcomes: "Sequence[Outcome]") -> None:
    first, last = outcomes[0], outcomes[-1]
    for outcome, colour, dash in zip(outcomes, COLOURS, DASHES, strict=False):
        table = np.array([course.hmean for course in outcome.courses])
        x = np.flatnonzero(np.isfinite(table).all(axis=0))
        axes.plot(x, table[:, x].mean(axis=0), dash, color=colour, label=outcome.method, linewidth=1.8)
        if outcome in (first, last):
            low, high = np.quantile(table[:, x], (0.25, 0.75), axis=0)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    budget = len(first.courses[0].hmean) - 1
    aim = first.at(1.0).mean()
    axes.axhline(aim, color=GREY, linewidth=0.8, linestyle=(0, (2, 3)))
    axes.axvline(budget / 3, color=GREY, linewidth=0.8, linestyle=(0, (2, 3)))
    axes.set_xlim(0, budget)
    axes.set_ylim(aim - 0.16, aim + 0.06)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
