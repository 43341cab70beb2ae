"""A sweep's early stopping in words: the rule in force, whom it ended and what that saved, and whether it was safe."""

from ocr_ray.report.blocks import Prose
from ocr_ray.report.contents import Sweep, Trial

BY = {"rule": "stopped early", "budget": "stopped by the budget", "hand": "stopped by hand"}


def rule_in_force(sweep: Sweep) -> str:
    """For the head of the page; empty where it is not known."""
    if sweep.rule is None:
        return ""
    return sweep.rule.in_words() + (" (auto)" if sweep.config.get("sweep.scheduler") == "auto" else "")


def comparisons(sweep: Sweep) -> str:
    """When trials were compared, and how many were ended by whom; empty where there is nothing to say."""
    rule, at = sweep.rule, ", ".join(map(str, sweep.rungs))
    said, asked = "", rule is not None and rule.ends_early
    if rule is not None and at:
        if not rule.ends_early:
            said = f"No rule ended trials early; where one would have compared them are dotted lines, at epoch {at}. "
        elif rule.rule == "median":
            said = f"From epoch {rule.first} on each trial is held against the others' median (dotted lines: {at}). "
        else:
            said = f"Trials are compared at epoch {at} (dotted lines). "
    parts = []
    for by, words in BY.items():
        count = sum(t.stopped_by == by for t in sweep.trials)
        if count or (by == "rule" and asked):
            parts.append(f"{count or 'none'} of {len(sweep.trials)} {'was' if count == 1 else 'were'} {words}")
    if not parts:
        return said.strip()
    counted = ", ".join(parts)
    return f"{said}{counted[:1].upper()}{counted[1:]}."


def told_the_end(sweep: Sweep) -> Prose | None:
    """The terminal's lines about the rungs as a paragraph."""
    lines = sweep.ranks.lines()
    if not lines:
        return None
    text = " ".join(f"{line[:1].upper()}{line[1:]}." for line in lines)
    if sweep.ranks.metrics():
        text += " A tau of 1 is the same order, 0 none."
    return Prose(text, "warning" if sweep.ranks.unsafe and sweep.ranks.stopped else "neutral")


def saved_by(sweep: Sweep, by: str) -> tuple[list[Trial], float]:
    """The trials that the rule, the budget or people ended before their last epoch, and device-hours left unspent."""
    trials = [t for t in sweep.trials if t.stopped_by == by]
    return trials, sum(map(sweep.saved_hours, trials))
