"""What a sweep's confirmation says: who won, by how much beyond noise, and which file that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Literal, assert_never

import numpy as np
from rich.table import Table

from ocr_ray.errors import RunError
from ocr_ray.evidence import Comparison, Counts, compare, hmean_of, mean_interval, spread_of
from ocr_ray.held_out import Held

Kind = Literal["candidate", "default", "start"]
"""A trial of the sweep, or one of the two controls: the config's own values, and weights that nobody trained."""
DEFAULT_NAME, START_NAME = "default config", "untouched start"


@dataclass(frozen=True, eq=False)
class Arm:
    """One way to get a student, and what came of it with each seed."""

    kind: Kind
    name: str
    """As people see it, e.g. `trial 3`."""
    counts: Counts
    """On val, `(S, N, 3)` as `evidence` has them: run s has the same seed in all arms, and all saw the N pictures."""
    files: tuple[Path, ...]
    """The weights of each run."""
    keep: tuple[float, ...] = ()
    """Hmean on `data.keep` of each run's weights; nothing where there is no such set."""
    reason: str = ""
    """Why a run of it failed; the arm is then out, and has no counts."""


@dataclass(frozen=True, eq=False)
class Finding:
    """An arm beside the two controls; None where it is that control itself, or the control is not there."""

    arm: Arm
    hmeans: tuple[float, ...]
    """By seed."""
    over_default: Comparison | None = None
    over_start: Comparison | None = None

    @property
    def mean(self) -> float:
        """Hmean over the seeds; not a number for an arm that is out."""
        return float(np.mean(self.hmeans)) if self.hmeans else math.nan

    @property
    def shipped(self) -> int:
        """The run whose weights stand for the arm: that of the median hmean, the lower of two.

        Not the best one: which of a few seeds does best on val is for the most part chance, and its hmean there would
        promise too much. What was found holds for a run of this config, and of such this is the middle one.
        """
        order = sorted(range(len(self.hmeans)), key=lambda i: (self.hmeans[i], i))
        return order[(len(order) - 1) // 2]

    @property
    def file(self) -> Path:
        """Its weights."""
        return self.arm.files[self.shipped]


@dataclass(frozen=True, eq=False)
class Confirmation:
    """All findings, the controls first, and the winner among them."""

    findings: tuple[Finding, ...]
    winner: Finding
    sentence: str
    """The answer, in one or two sentences."""
    seeds: tuple[int, ...] = field(default=())

    def of(self, kind: Kind) -> Finding | None:
        """The finding of a control that came through."""
        return next((f for f in self.findings if f.arm.kind == kind and f.hmeans), None)

    def files(self) -> dict[Held, tuple[str, Path]]:
        """Names and weights of the winner and of those controls that are others."""
        chosen: dict[Held, tuple[str, Path]] = {"winner": (self.winner.arm.name, self.winner.file)}
        kinds: tuple[Literal["default", "start"], ...] = ("default", "start")
        for kind in kinds:
            control = self.of(kind)
            if control is not None and control is not self.winner:
                chosen[kind] = control.arm.name, control.file
        return chosen

    def metrics(self) -> dict[str, float]:
        """Names under which a sweep records the winner: its mean hmean and that one's interval, and its differences
        to the controls with theirs."""
        mean, low, high = mean_interval(self.winner.arm.counts)
        named = {"confirm.mean": mean, "confirm.low": low, "confirm.high": high}
        if len(self.winner.hmeans) > 1:
            named["confirm.spread"] = spread_of(np.array(self.winner.hmeans))
        for control, found in (("default", self.winner.over_default), ("start", self.winner.over_start)):
            if found is not None:
                for what in ("difference", "low", "high", "p"):
                    named[f"confirm.over_{control}.{what}"] = getattr(found, what)
        return named

    def plain(self, folder: Path, device_hours: float) -> dict[str, object]:
        """As JSON holds it: each arm with the weights that stand for it, from the sweep's folder where they lie in it,
        and which of its seeds they are of; device_hours is what the runs took."""
        arms = [
            {
                "kind": f.arm.kind,
                "name": f.arm.name,
                "hmeans": f.hmeans,
                "keep": f.arm.keep,
                "weights": str(f.file.relative_to(folder) if f.file.is_relative_to(folder) else f.file)
                if f.hmeans
                else "",
                "shipped": f.shipped if f.hmeans else None,
                "reason": f.arm.reason,
                "over": [
                    {"control": name, **{key: getattr(over, key) for key in ("difference", "low", "high", "p")}}
                    for name, over in ((DEFAULT_NAME, f.over_default), (START_NAME, f.over_start))
                    if over is not None
                ],
            }
            for f in self.findings
        ]
        return {
            "winner": self.winner.arm.name,
            "sentence": self.sentence,
            "seeds": self.seeds,
            "device_hours": device_hours,
            "arms": arms,
        }

    def tags(self) -> dict[str, str]:
        """Names under which a sweep records who won."""
        return {
            "winner": self.winner.arm.name,
            "winner.kind": self.winner.arm.kind,
            "confirm.answer": self.sentence,
            "confirm.seeds": " ".join(map(str, self.seeds)),
        }

    def table(self) -> Table:
        """A row for each arm, for the terminal. The winner is marked."""
        has_start = self.of("start") is not None
        has_keep = any(f.arm.keep for f in self.findings)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for head in ("confirmed", "seeds", "hmean", "", *(["keep"] if has_keep else [])):
            table.add_column(head, justify="left" if head in ("confirmed", "") else "right", no_wrap=True)
        for name in (DEFAULT_NAME, *([START_NAME] if has_start else [])):
            table.add_column(f"over the {name}", no_wrap=True)
            table.add_column("p", justify="right", no_wrap=True)
        for f in self.findings:
            compared = [f.over_default, *([f.over_start] if has_start else [])]
            keep = [f"{np.mean(f.arm.keep):.4f}" if f.arm.keep else ""] if has_keep else []
            if not f.hmeans:
                table.add_row(f.arm.name, "", "", f"failed: {shorten(f.arm.reason, 60)}")
                continue
            trained = f.arm.kind != "start"
            table.add_row(
                f.arm.name + (" *" if f is self.winner else ""),
                str(len(f.hmeans)) if trained else "",
                f"{f.mean:.4f}",
                f"± {spread_of(np.array(f.hmeans)):.4f}" if trained else "",
                *keep,
                *(cell for c in compared for cell in ((c.text(), _p(c.p)) if c else ("", ""))),
                style="bold" if f is self.winner else None,
            )
        return table


def judge(arms: Sequence[Arm], seeds: Sequence[int] = ()) -> Confirmation:
    """Holds each arm against the controls among them, and picks the winner.

    It is the candidate of the best mean among those whose interval against both controls lies above 0. Where there is
    none it is the untouched start if nothing beat that, else the default config. A control that failed, or is not
    there, cannot be beaten and stands in nobody's way.

    Raises: RunError when no arm came through.
    """
    through = [arm for arm in arms if not arm.reason]
    if not through:
        raise RunError(f"no run of the confirmation came through: {arms[0].name}: {arms[0].reason}")
    default, start = (next((arm for arm in through if arm.kind == kind), None) for kind in ("default", "start"))

    def find(arm: Arm) -> Finding:
        if arm.reason:
            return Finding(arm, ())
        return Finding(
            arm,
            tuple(hmean_of(arm.counts).tolist()),
            compare(arm.counts, default.counts) if default is not None and arm.kind == "candidate" else None,
            compare(arm.counts, start.counts) if start is not None and arm is not start else None,
        )

    order: list[Kind] = ["start", "default", "candidate"]
    findings = tuple(find(arm) for arm in sorted(arms, key=lambda arm: order.index(arm.kind)))
    winner = _winner([f for f in findings if f.hmeans])
    return Confirmation(findings, winner, _sentence(winner, findings), tuple(seeds))


def _winner(findings: list[Finding]) -> Finding:
    candidates = [f for f in findings if f.arm.kind == "candidate"]
    gains = [f for f in candidates if all(c is None or c.is_gain for c in (f.over_default, f.over_start))]
    if gains:
        return max(gains, key=lambda f: f.mean)
    controls = {f.arm.kind: f for f in findings if f.arm.kind != "candidate"}
    beaten = any(f.over_start is not None and f.over_start.is_gain for f in findings)
    return controls["start" if "start" in controls and not (beaten and "default" in controls) else "default"]


def _sentence(winner: Finding, findings: Sequence[Finding]) -> str:
    seeds = f"over {len(winner.hmeans)} seeds"
    match winner.arm.kind:
        case "candidate":
            found = [
                f"{comparison.text()} over the {name}"
                for name, comparison in ((DEFAULT_NAME, winner.over_default), (START_NAME, winner.over_start))
                if comparison is not None
            ]
            won = " and ".join(found) or "no control came through that it could be held against"
            return f"{winner.arm.name} wins: mean hmean {winner.mean:.4f} {seeds}, {won}."
        case "default":
            nothing = f"nothing beat the {DEFAULT_NAME} beyond noise: its mean hmean is {winner.mean:.4f} {seeds}"
        case "start":
            nothing = f"nothing beat the {START_NAME} beyond noise: its hmean is {winner.mean:.4f}"
        case _:
            assert_never(winner.arm.kind)
    trained = [f for f in findings if f.hmeans and f.arm.kind != "start" and f is not winner]
    best = max(trained, key=lambda f: f.mean, default=None)
    if best is None:
        return f"{nothing}."
    compared = best.over_default if winner.arm.kind == "default" else best.over_start
    if compared is None:
        return f"{nothing}."
    doubt = ""
    if compared.is_gain and best.over_start is not None:  # it beat the one control, and not the other
        doubt = f", but only by {best.over_start.text()} from the {START_NAME}"
    return f"{nothing}, and {best.arm.name}, the best beside it, differs by {compared.text()}{doubt}."


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "<.001"
