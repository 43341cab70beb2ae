"""Whether a version may take the champion's place: better beyond noise, fast enough, and on no slice much worse."""

import math
from dataclasses import dataclass

from rich.table import Table

from ocr_ray.errors import ConfigError
from ocr_ray.evidence import Comparison, compare, hmean_of
from ocr_ray.registry.measure import Measured
from ocr_ray.registry.slices import SLICES, Slice

FEW = 30
"""Regions below which a slice is shown and not judged: one of them would then move its recall by more than .03."""


@dataclass(frozen=True)
class Limits:
    """What a version must keep to."""

    most_ms: float | None = None
    """For a picture, from its pixels to its regions, on one thread, median over the pictures. Absent: `most_slower`."""
    most_slower: float = 1.25
    """Times the champion's, which is measured beside it."""
    most_lost: float = 0.02
    """Of a slice's hmean, to the champion's."""

    def __post_init__(self) -> None:
        if self.most_ms is not None and not self.most_ms > 0:
            raise ConfigError(f"--most-ms: expected a number above 0, found {self.most_ms:g}")
        if not 0 <= self.most_lost <= 1:
            raise ConfigError(f"--most-lost: expected a number from 0 to 1, found {self.most_lost:g}")


@dataclass(frozen=True)
class Check:
    """One condition, in words for the table and the version's tags."""

    name: str
    found: str
    champion: str
    difference: str
    """To the champion's, with the ends of its 95% interval where there is one."""
    wanted: str
    passed: bool | None
    """None where it was not judged."""


@dataclass(frozen=True)
class Verdict:
    """All conditions; a version is promoted when none failed."""

    checks: tuple[Check, ...]

    @property
    def promoted(self) -> bool:
        """Whether it may become the champion."""
        return all(check.passed is not False for check in self.checks)

    @property
    def why(self) -> str:
        """The conditions that failed, in one line; what passed where none did."""
        failed = [c for c in self.checks if c.passed is False]
        if failed:
            return "; ".join(f"{_figure(c)}, expected {c.wanted}" for c in failed)
        return _figure(self.checks[0])

    def tags(self) -> dict[str, str]:
        """Names under which a version keeps it."""
        named = {"promotion": "promoted" if self.promoted else "refused", "promotion.why": self.why}
        for check in self.checks:
            key = f"promotion.{check.name.replace(' ', '_')}"
            parts = {"": check.found, ".champion": check.champion, ".difference": check.difference}
            named |= {f"{key}{part}": text for part, text in parts.items() if text}
            named[f"{key}.verdict"] = _said(check)
            named[f"{key}.limit"] = check.wanted
        return named

    def table(self, title: str, name: str, champion: str | None) -> Table:
        """A row for each condition, for the terminal."""
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for head in ("", name, *([champion, "difference"] if champion else []), "limit", ""):
            table.add_column(head, justify="right" if head in (name, champion) else "left", no_wrap=True)
        for c in self.checks:
            compared = [c.champion, c.difference] if champion else []
            style = "bold red" if c.passed is False else None
            table.add_row(c.name, c.found, *compared, c.wanted, _said(c), style=style)
        return table


def judge(version: Measured, champion: Measured | None, limits: Limits) -> Verdict:
    """Holds a version against the champion, both measured on the same pictures.

    Better means that the whole 95% interval of the hmean's difference lies above 0, over pictures resampled in pairs.
    Without a champion the version has to find something and be fast enough. Of a slice the difference itself counts,
    not its interval: a version that looks worse there is not let through for want of pictures.
    """
    if champion is None:
        first = Check("hmean", f"{version.hmean:.4f}", "", "", "above 0: no champion yet", version.hmean > 0)
        return Verdict((first, _latency(version, None, limits), *(_slice(s, version, None, limits) for s in SLICES)))
    overall = compare(version.counts[None], champion.counts[None])
    better = Check(
        "hmean",
        f"{version.hmean:.4f}",
        f"{champion.hmean:.4f}",
        overall.text(),
        "its whole interval above 0",
        overall.is_gain,
    )
    slices = (_slice(what, version, champion, limits) for what in SLICES)
    return Verdict((better, _latency(version, champion, limits), *slices))


def _latency(version: Measured, champion: Measured | None, limits: Limits) -> Check:
    found, name = version.latency_ms, "latency"
    theirs = math.nan if champion is None else champion.latency_ms
    shown = "" if champion is None else f"{theirs:.1f} ms"
    difference = "" if champion is None else f"{found / theirs:.2f} times"
    if limits.most_ms is not None:
        return Check(
            name, f"{found:.1f} ms", shown, difference, f"at most {limits.most_ms:g} ms", found <= limits.most_ms
        )
    if champion is None:
        return Check(name, f"{found:.1f} ms", "", "", "none given (--most-ms)", None)
    most = f"at most {limits.most_slower:g} times the champion's {theirs:.1f} ms"
    return Check(name, f"{found:.1f} ms", shown, difference, most, found <= limits.most_slower * theirs)


def _slice(what: Slice, version: Measured, champion: Measured | None, limits: Limits) -> Check:
    ours = version.by_slice[what]
    regions = int(ours[:, 1].sum())
    name, found = f"slice {what}", f"{float(hmean_of(ours)):.4f} of {regions}" if regions else "no regions"
    wanted = f"at most {limits.most_lost:g} below"
    if champion is None or not regions:
        return Check(name, found, "", "", wanted if regions else "", None)
    theirs = champion.by_slice[what]
    compared: Comparison = compare(ours[None], theirs[None])
    passed = None if regions < FEW else compared.difference >= -limits.most_lost
    return Check(
        name,
        found,
        f"{float(hmean_of(theirs)):.4f}",
        compared.text(),
        wanted if passed is not None else f"not judged below {FEW} regions",
        passed,
    )


def _figure(check: Check) -> str:
    """What was found, and what that is to the champion's, since a limit may be of either."""
    return f"{check.name}: {', '.join(filter(None, (check.found, check.difference)))}"


def _said(check: Check) -> str:
    return {True: "passed", False: "FAILED", None: "not judged"}[check.passed]
