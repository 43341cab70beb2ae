"""A row of the table, and what all subjects are given to measure with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.pictures import Pictures
from benchmarks.reference import Reference


@dataclass(frozen=True)
class Row:
    """One figure. `met` is None for a figure without a target, or where nothing could be measured."""

    name: str
    value: float | None
    target: float | None
    unit: str
    how: str
    """What was timed against what, how often; why a target is missed; what is left out."""
    reference: float | None = None
    """The same figure of the reference, measured in the same run; None where it is not installed."""

    @property
    def met(self) -> bool | None:
        """Whether the value is at or below the target."""
        return None if self.value is None or self.target is None else self.value <= self.target

    def with_reason(self, reason: str) -> "Row":
        """The row, which says `reason` in `how` where its target is missed."""
        return replace(self, how=f"{self.how}; missed: {reason}") if self.met is False else self


@dataclass(frozen=True)
class Bench:
    """What a subject measures with. `quick` asks for seconds rather than minutes."""

    quick: bool
    pictures: Pictures
    reference: Reference | None
    folder: Path
    """For files of its own; removed at the end."""
    say: Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """One file of this package: what it measures, and whether that is short enough for `--quick`."""

    name: str
    rows: Callable[[Bench], list[Row]]
    quick: bool = True
