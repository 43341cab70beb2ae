"""Our default sweep against random search and plain rules, at equal epochs, on recorded and on made-up learning curves.

    python -m benchmarks.search [--seeds 20] [--variants] [--plot docs/search.png] [--json FILE]

What is compared is what the product does, by its own searchers and schedulers (`benchmarks/simulated_sweep.py`); what a
trial reports comes from `benchmarks/landscapes.py`. Every method spends as many epochs as random search does on so many
whole trials, with the same seeds. `hmean` is that of the weights that a sweep would hand out at that moment: the best
that any of its trials has reached.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.landscapes import Curve, Landscape, Recorded, Synthetic, agreement, read_recorded
from benchmarks.simulated_sweep import Course, plain_rule, plan_of, random_curves, simulate
from ocr_ray.distributions import Scalar
from ocr_ray.spaces import SearchSpace

CURVES = Path(__file__).parent / "curves" / "cml_demo.json"
SIZES = (8, 16, 40)
"""Whole trials of random search, and the `sweep.trials` of all methods."""
SHARES = {"1/3": 1 / 3, "2/3": 2 / 3, "1": 1.0}
"""Of random search's epochs."""
BLIND: dict[str, Any] = {"searcher": "random", "default_first": False, "neighbours": 0}


@dataclass(frozen=True)
class Method:
    """A way to spend epochs: a sweep of these settings, or, with `keep`, the plain rule."""

    name: str
    sweep: Mapping[str, Any] = field(default_factory=dict)
    keep: float | None = None


RANDOM = Method("random, full length", {**BLIND, "scheduler": "none"})
OURS = Method("our default")
METHODS = (
    RANDOM,
    Method("random, ASHA", {**BLIND, "scheduler": "asha"}),
    Method("one epoch, best quarter", keep=0.25),
    OURS,
)
VARIANTS = (
    Method("one epoch, best half", keep=0.5),
    Method("one epoch, best eighth", keep=0.125),
    Method("ours, random draws", {"searcher": "random"}),
    Method("ours, no first trials", {"default_first": False, "neighbours": 0}),
    Method("ours, all to their end", {"scheduler": "none"}),
    Method("ours, median", {"scheduler": "median"}),
    Method("ours, median from 1", {"scheduler": "median", "grace_epochs": 1}),
    Method("ours, ASHA", {"scheduler": "asha"}),
    Method("ours, ASHA by 2", {"scheduler": "asha", "reduction_factor": 2}),
    Method("ours, ASHA by 4", {"scheduler": "asha", "reduction_factor": 4}),
    Method("ours, ASHA from 2", {"scheduler": "asha", "grace_epochs": 2}),
)


@dataclass(frozen=True)
class Ground:
    """Where methods are compared: a landscape for each seed, with its space and the config's own values."""

    name: str
    space: SearchSpace
    own: Mapping[str, Scalar]
    epochs: int
    of_seed: Callable[[int], Landscape]


@dataclass(frozen=True)
class Outcome:
    """A method at one place and size, over the seeds."""

    method: str
    courses: tuple[Course, ...]
    typed: tuple[Course, ...]
    """The sweep of so many trials as it is typed, ended by their number; empty for the plain rule."""

    def at(self, share: float, what: str = "hmean") -> NDArray[np.float64]:
        """Of each seed, at that share of the budget."""
        return np.array([getattr(c, what)[round(share * (len(c.hmean) - 1))] for c in self.courses])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search")
    parser.add_argument("--curves", type=Path, default=CURVES, metavar="FILE", help="of benchmarks.record_curves")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--at-once", type=int, default=4, metavar="N", help="trials at a time")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="TRIALS")
    parser.add_argument(
        "--variants", action="store_true", help="other settings of ours, and of the plain rule, as well"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw hmean by epochs spent")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table's figures there")
    arguments = parser.parse_args()
    recorded = read_recorded(arguments.curves)
    console = Console(width=150)
    console.print(recorded.quality(), highlight=False)
    methods = (*METHODS, *VARIANTS) if arguments.variants else METHODS
    found: dict[str, dict[int, list[Outcome]]] = {}
    for where in grounds(recorded):
        taus = agreement(where.of_seed(0), where.space, np.random.default_rng(0))
        told = ", ".join(f"{tau:.2f} at {epoch}" for epoch, tau in enumerate(taus, start=1) if epoch in (1, 2, 3, 5))
        console.print(f"\n{where.name}: order of the trials at an epoch and at the end, Kendall's tau: {told}")
        for size in arguments.sizes:
            outcomes = compare(where, methods, size, range(arguments.seeds), arguments.at_once)
            found.setdefault(where.name, {})[size] = outcomes
            console.print(table(outcomes, f"{where.name}, {size} trials, {arguments.seeds} seeds"))
    if arguments.json is not None:
        rows = [
            {"place": name, "trials": size, **row}
            for name, by_size in found.items()
            for size, outcomes in by_size.items()
            for row in figures(outcomes)
        ]
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    if arguments.plot is not None:
        from benchmarks.search_plot import draw

        draw(found, arguments.plot)


def grounds(recorded: Recorded) -> tuple[Ground, ...]:
    """The recorded curves, and made-up ones over the same space whose early order tells much, and little."""

    def made_up(crossing: float, seed: int) -> Landscape:
        return Synthetic(recorded.space, recorded.epochs, seed, crossing)

    return (
        Ground("recorded", recorded.space, recorded.own, recorded.epochs, lambda seed: recorded),
        Ground("synthetic", recorded.space, recorded.own, recorded.epochs, partial(made_up, 0.3)),
        Ground("synthetic, crossing", recorded.space, recorded.own, recorded.epochs, partial(made_up, 1.5)),
    )


def compare(where: Ground, methods: Sequence[Method], size: int, seeds: Sequence[int], at_once: int) -> list[Outcome]:
    """All methods with the same seeds, each with the epochs of `size` whole trials."""
    outcomes = []
    for method in methods:
        courses, typed = [], []
        settings = method.sweep if method.keep is None else BLIND
        plan = plan_of(where.space, where.own, where.epochs, trials=size, **settings)
        budget = size * where.epochs
        for seed in seeds:
            landscape = where.of_seed(seed)
            if method.keep is None:
                courses.append(simulate(plan, seed, landscape, at_once, budget))
                typed.append(simulate(plan, seed, landscape, at_once, budget, limit=size))
            else:
                courses.append(_by_budget(random_curves(plan, seed, landscape), where.epochs, budget, method.keep))
        outcomes.append(Outcome(method.name, tuple(courses), tuple(typed)))
    return outcomes


def _by_budget(curves: Callable[[int], Curve], epochs: int, budget: int, keep: float) -> Course:
    """The plain rule has to know its budget: at each number of epochs, the end of the one that was made for it."""
    ends = [plain_rule(curves, epochs, b, keep) for b in range(epochs, budget + 1)]
    before = [np.nan] * epochs
    hmean, expected = (np.array([*before, *(getattr(c, what)[-1] for c in ends)]) for what in ("hmean", "expected"))
    return Course(hmean, expected, ends[-1].spent, ends[-1].trials)


def figures(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """A row for each method: means over the seeds, and the shares of them in which the aim is met."""
    whole = next(o for o in outcomes if o.method == RANDOM.name).at(1.0)
    rows = []
    for o in outcomes:
        row: dict[str, Any] = {"method": o.method}
        for name, share in SHARES.items():
            row[f"hmean at {name}"] = float(o.at(share).mean())
            row[f"quartiles at {name}"] = np.quantile(o.at(share), (0.25, 0.75)).tolist()
        gain = o.at(1 / 3) - whole
        row["difference at 1/3 to random whole"] = float(gain.mean())
        row["standard error of it"] = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else None
        row["reached at 1/3"] = float((gain >= 0).mean())
        row["expected at 1/3"] = float(o.at(1 / 3, "expected").mean())
        row["expected at 1"] = float(o.at(1.0, "expected").mean())
        if o.typed:
            row["as typed: share of epochs"] = float(np.mean([c.spent / (len(c.hmean) - 1) for c in o.typed]))
            row["as typed: hmean"] = float(np.mean([c.hmean[-1] for c in o.typed]))
            row["as typed: reached"] = float(np.mean([c.hmean[-1] >= w for c, w in zip(o.typed, whole, strict=True)]))
        rows.append(row)
    return rows


def table(outcomes: Sequence[Outcome], title: str) -> Table:
    """For people."""
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    headings = ("", *(f"at {s}" for s in SHARES), "1/3 less random whole", "reached", "fresh seed: at 1/3", "at 1")
    for n, heading in enumerate((*headings, "as typed: epochs", "hmean", "reached")):
        drawn.add_column(heading, justify="right" if n else "left")
    for row in figures(outcomes):
        error = row["standard error of it"]
        typed = "as typed: hmean" in row
        drawn.add_row(
            row["method"],
            *(f"{row[f'hmean at {name}']:.3f}" for name in SHARES),
            f"{row['difference at 1/3 to random whole']:+.3f}" + (f" ± {error:.3f}" if error is not None else ""),
            f"{row['reached at 1/3']:.0%}",
            f"{row['expected at 1/3']:.3f}",
            f"{row['expected at 1']:.3f}",
            f"{row['as typed: share of epochs']:.0%}" if typed else "",
            f"{row['as typed: hmean']:.3f}" if typed else "",
            f"{row['as typed: reached']:.0%}" if typed else "",
        )
    return drawn


if __name__ == "__main__":
    main()
