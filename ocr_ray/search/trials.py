"""What a sweep knows about its trials: kept in one file of its folder, shown as one table."""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, assert_never

from rich.table import Table

from ocr_ray.distributions import Scalar
from ocr_ray.files import write_text

TRIALS_FILE = "trials.json"
OBJECTIVE = "hmean.best"
"""A trial is judged by the best hmean it has reached, which is what its kept weights reach: hmean itself dips in single
epochs while the learning rate is high."""

Against = Literal["parameters", "latency"]
End = Literal["running", "finished", "stopped early", "stopped by hand", "stopped by budget", "failed"]


@dataclass(frozen=True)
class TrialSummary:
    """One trial."""

    number: int
    """From 1, in the order in which the searcher proposed them."""
    trial_id: str
    values: dict[str, Scalar] = field(default_factory=dict)
    """Of the varied keys: what was drawn, and from the first report on what the worker says it trains with."""
    epochs: int = 0
    hmean: float | None = None
    """The best over its epochs, which its kept weights reach; None before the first report."""
    best: str = ""
    """The weights file of that epoch; empty when there is none."""
    end: End = "running"
    reason: str = ""
    """Why it failed, was ended before its last epoch, or when it was asked that it be stopped, in one line."""
    seconds: float = 0.0
    """From the trial's start, its workers' start included, to its end, over all attempts."""
    keep: float | None = None
    """Hmean on `data.keep` of the weights in `best`; it chose nothing. None without such a set."""
    parameters: int | None = None
    """Of its student; None before the first report."""
    latency_ms: float | None = None
    """Of its student, on one CPU thread; None where it was not measured."""
    took_over: str = ""
    """In a population: whose weights it went on from last, e.g. `trial 1 at epoch 40`; its values are then the last of
    a schedule."""

    def cost(self, against: Against) -> float | None:
        """What its hmean is weighed against."""
        match against:
            case "parameters":
                return self.parameters
            case "latency":
                return self.latency_ms
            case _:
                assert_never(against)


class TrialBook:
    """The trials of one sweep by id, written whole to `trials.json` at every change, so that a resume knows them.

    Args: identity tells whether a resume continues the same search, e.g. the space and the sweep's settings.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._path = folder / TRIALS_FILE
        self.identity = dict(identity)
        self._trials: dict[str, TrialSummary] = {}

    @property
    def trials(self) -> list[TrialSummary]:
        """In the order of their numbers."""
        return sorted(self._trials.values(), key=lambda trial: trial.number)

    def load(self) -> dict[str, Any]:
        """Takes over the trials of the file, if there is one yet. Returns: the identity that it was written with."""
        if not self._path.exists():
            return self.identity
        read = json.loads(self._path.read_text())
        self._trials = {t["trial_id"]: TrialSummary(**t) for t in read["trials"]}
        return dict(read["identity"])

    def start(self, trial_id: str, number: int, drawn: Mapping[str, Scalar]) -> TrialSummary:
        """The trial of that id, new or known from an earlier attempt, as running."""
        known = self._trials.get(trial_id) or TrialSummary(number, trial_id, dict(drawn))
        return self.change(dataclasses.replace(known, end="running", reason=""))

    def next_number(self) -> int:
        """One more than any trial has."""
        return 1 + max((t.number for t in self._trials.values()), default=0)

    def of(self, trial_id: str) -> TrialSummary | None:
        """The trial of that id, if it has started."""
        return self._trials.get(trial_id)

    def change(self, trial: TrialSummary) -> TrialSummary:
        """Puts `trial` in the place of what was known of it."""
        self._trials[trial.trial_id] = trial
        self.save()
        return trial

    def save(self) -> None:
        """Writes the file."""
        plain = {"identity": self.identity, "trials": [dataclasses.asdict(t) for t in self.trials]}
        write_text(self._path, json.dumps(plain, indent=1))


def best_trial(trials: list[TrialSummary]) -> TrialSummary | None:
    """The one with the highest hmean among those that have weights to show for it; the earlier one of equals."""
    shown = [t for t in trials if t.hmean is not None and t.best]
    return max(shown, key=lambda t: (t.hmean or 0.0, -t.number), default=None)


def pareto_set(trials: list[TrialSummary], against: Against) -> list[TrialSummary]:
    """The trials of which no other has at least their hmean at no more cost, and more or less of one; by cost.

    As with `best_trial`, only those that have weights to show for it.
    """
    shown = [
        (t, t.hmean, cost) for t in trials if t.hmean is not None and t.best and (cost := t.cost(against)) is not None
    ]
    front = [
        (cost, t.number, t)
        for t, hmean, cost in shown
        if not any(h >= hmean and c <= cost and (h, c) != (hmean, cost) for _, h, c in shown)
    ]
    return [t for _, _, t in sorted(front, key=lambda found: found[:2])]


def trials_table(
    trials: list[TrialSummary],
    pareto: Sequence[TrialSummary] | None = None,
    alive: bool = True,
    asked: Collection[int] = (),
) -> Table:
    """A row for each trial: what varied, how far it came, how it ended. The best one is marked.

    Args: pareto is the answer of a sweep with a second objective; its trials are marked, and all have their costs.
        alive tells whether there is a driver who runs those that have not ended; asked are the numbers of those that it
        has been asked to stop.
    """
    keys = list(dict.fromkeys(key for t in trials for key in t.values))
    best = best_trial(trials)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("trial", justify="right")
    for key in keys:
        table.add_column(key.replace(".", ".\n"), justify="right", no_wrap=True)  # keys are long, their values short
    table.add_column("epochs", justify="right")
    table.add_column("hmean", justify="right", no_wrap=True)
    has_keep = any(t.keep is not None for t in trials)
    if has_keep:
        table.add_column("keep", justify="right", no_wrap=True)
    if pareto is not None:
        table.add_column("parameters", justify="right")
        table.add_column("latency ms", justify="right", no_wrap=True)
        table.add_column("Pareto")
    table.add_column("end", no_wrap=not any(t.end == "failed" and t.reason for t in trials))
    table.add_column("seconds", justify="right")
    for t in trials:
        table.add_row(
            str(t.number),
            *(_short(t.values.get(key)) for key in keys),
            str(t.epochs),
            "" if t.hmean is None else f"{t.hmean:.4f}" + (" *" if t is best else "  "),
            *(["" if t.keep is None else f"{t.keep:.4f}"] if has_keep else []),
            *(_costs(t, t in pareto) if pareto is not None else ()),
            _end(t, alive, t.number in asked)
            + (f": {shorten(t.reason, 60)}" if t.end in ("failed", "stopped by hand") and t.reason else ""),
            f"{t.seconds:.0f}",
            style="bold" if t is best else None,
        )
    return table


def _end(trial: TrialSummary, alive: bool, asked: bool) -> str:
    if trial.end != "running":
        return trial.end + (f", from {trial.took_over}" if trial.took_over else "")
    words = "interrupted" if not alive else "running" if trial.epochs else "starting"
    return words + (", to be stopped" if asked else "")


def _costs(trial: TrialSummary, marked: bool) -> tuple[str, str, str]:
    latency = "" if trial.latency_ms is None else f"{trial.latency_ms:.1f}"
    return "" if trial.parameters is None else f"{trial.parameters:,}", latency, "+" if marked else ""


def _short(value: Scalar) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
