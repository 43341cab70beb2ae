"""How each kind of trial is drawn in every chart, and what pointing at one shows."""

from collections.abc import Sequence
from dataclasses import dataclass

from ocr_ray.report.contents import Scalar, Sweep, Trial
from ocr_ray.report.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, lines, plain
from ocr_ray.report.verdict import end_of


@dataclass(frozen=True)
class Look:
    """How a kind of trial is drawn: by colour, dash and symbol, so that no one of them has to be seen."""

    name: str
    colour: str
    dash: str
    symbol: str
    width: float
    size: int
    opacity: float


WINNER = Look("winner", ORANGE, "solid", "star", 3.2, 13, 1.0)
UNBEATEN = Look("the config's own values, which won", ORANGE, "solid", "star", 3.2, 13, 1.0)
CONTROL = Look("the config's own values", GREEN, "solid", "diamond", 3.0, 10, 1.0)
FINISHED = Look("finished", BLUE, "solid", "circle", 1.5, 7, 0.85)
STOPPED = Look("stopped before its end", GREY, "dash", "x", 1.3, 8, 0.9)
FAILED = Look("failed", PURPLE, "dot", "triangle-down", 1.3, 9, 0.9)
RUNNING = Look("running", BLUE, "dot", "circle-open", 1.5, 8, 0.9)
LOOKS = (FINISHED, STOPPED, FAILED, RUNNING, CONTROL, UNBEATEN, WINNER)
"""From back to front."""


def look_of(trial: Trial, sweep: Sweep) -> Look:
    """What the trial is drawn as."""
    if trial is sweep.winner:
        return UNBEATEN if trial is sweep.control else WINNER
    if trial is sweep.control:
        return CONTROL
    if trial.was_stopped:
        return STOPPED
    return {"finished": FINISHED, "failed": FAILED}.get(trial.end, RUNNING)


def by_look(sweep: Sweep, trials: Sequence[Trial]) -> list[tuple[Look, list[Trial]]]:
    """The trials of each kind that there is."""
    kinds = [(look, [t for t in trials if look_of(t, sweep) is look]) for look in LOOKS]
    return [(look, found) for look, found in kinds if found]


def told(trial: Trial, sweep: Sweep) -> str:
    """What hovering over a trial shows."""
    values = [plain(f"{key} = {short(value)}") for key, value in trial.values.items() if value is not None]
    reached = "" if trial.hmean is None else f"hmean {trial.hmean:.4f}"
    reason = plain(trial.reason if len(trial.reason) <= 80 else trial.reason[:77] + "...")
    return lines(f"<b>{trial.name}</b>", reached, plain(end_of(trial, sweep.epochs)), *values, reason)


def short(value: Scalar) -> str:
    """A knob's value in a few characters."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.3g}" if isinstance(value, float) else str(value)
