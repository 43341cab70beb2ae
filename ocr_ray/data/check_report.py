"""What a check of label files found, and how it is told."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Severity = Literal["dropped", "warning", "info"]
"""`dropped`: training or evaluation would refuse it or leave it out. `warning`: used, but look at it. `info`."""

UNREADABLE = "pictures that cannot be read"
"""Kind of the findings of that sort."""
SIDE_BINS_PX = (0, 8, 16, 32, 64, 128)
_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or worth knowing: what (`kind` is the same for all of a sort), where, and how so."""

    severity: Severity
    kind: str
    where: str
    detail: str = ""


@dataclass(frozen=True)
class SetCounts:
    """What one set holds. `sides` counts its legible boxes by their shorter extent, in the bins of SIDE_BINS_PX."""

    name: str
    images: int
    boxes: int
    ignored: int
    without_text: int
    all_ignored: int
    sides: tuple[int, ...]

    @property
    def legible(self) -> int:
        """Boxes that count."""
        return self.boxes - self.ignored


@dataclass(frozen=True)
class CheckReport:
    """Counts of each set, and the findings, the gravest first."""

    sets: tuple[SetCounts, ...]
    findings: tuple[Finding, ...]
    short: bool
    """No picture was decoded."""

    @property
    def would_drop(self) -> bool:
        """Whether anything would be refused or left out."""
        return any(finding.severity == "dropped" for finding in self.findings)

    def unreadable(self) -> set[str]:
        """Where the pictures are named that cannot be read, as the labels have them."""
        return {finding.where for finding in self.findings if finding.kind == UNREADABLE}

    def one_line(self) -> str:
        """Counts, then each kind of drop and warning with its number and first place."""
        parts = [
            f"{s.name} {s.images:,} images, {s.legible:,} legible and {s.ignored:,} ignored boxes" for s in self.sets
        ]
        for severity, kind, findings in self._kinds():
            if severity != "info":
                first = findings[0].where + (f": {findings[0].detail}" if findings[0].detail else "")
                parts.append(f"{kind}: {len(findings):,} ({first})" if len(findings) > 1 else f"{kind} ({first})")
        if not any(finding.severity != "info" for finding in self.findings):
            parts.append("nothing wrong was found")
        elif self.short:
            parts.append("`ocr-ray data check` tells all")
        return "; ".join(parts)

    def text(self) -> RenderableType:
        """Tables of counts and box sizes, then the findings by kind with their first places, for a terminal."""
        shown: list[RenderableType] = [self._counts(), self._sizes()]
        for severity, kind, findings in self._kinds():
            style = {"dropped": "bold red", "warning": "yellow", "info": "dim"}[severity]
            shown.append(Text.assemble((f"{severity}: {kind}: {len(findings):,}", style)))
            for finding in findings[:_SHOWN]:
                shown.append(Text(f"  {finding.where}" + (f": {finding.detail}" if finding.detail else "")))
            if len(findings) > _SHOWN:
                shown.append(Text(f"  and {len(findings) - _SHOWN:,} more", style="dim"))
        shown.append(Text("something would be dropped" if self.would_drop else "nothing would be dropped"))
        return Group(*shown)

    def _kinds(self) -> list[tuple[Severity, str, list[Finding]]]:
        by_kind: dict[tuple[Severity, str], list[Finding]] = defaultdict(list)
        for finding in self.findings:
            by_kind[finding.severity, finding.kind].append(finding)
        return [(severity, kind, found) for (severity, kind), found in by_kind.items()]

    def _counts(self) -> Table:
        table = Table(*("set", "images", "without text", "all ignored", "boxes", "legible", "ignored"))
        for s in self.sets:
            numbers = (s.images, s.without_text, s.all_ignored, s.boxes, s.legible, s.ignored)
            table.add_row(s.name, *(f"{n:,}" for n in numbers))
        return table

    def _sizes(self) -> Table:
        ends = [f"to {end}" for end in SIDE_BINS_PX[1:]] + ["more"]
        table = Table("set", *ends, title="legible boxes by their shorter side in pixels", title_justify="left")
        for s in self.sets:
            table.add_row(s.name, *(f"{n:,} ({n / max(1, s.legible):.0%})" for n in s.sides))
        return table
