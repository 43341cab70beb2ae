"""What a sweep found, in plain words and a few figures: what won, by how much, whether that is more than luck."""

from collections import Counter

from ocr_ray.report.blocks import Headline, Tile
from ocr_ray.report.contents import Arm, Confirmation, Difference, Sweep, Trial

START = "hmean.start"
TEACHER = "hmean.Teacher"


def headline(sweep: Sweep) -> Headline:
    """The first thing that the page says."""
    if sweep.confirmation is not None and sweep.confirmation.answer is not None:
        return _confirmed(sweep, sweep.confirmation, sweep.confirmation.answer)
    winner = sweep.winner
    if winner is None or winner.hmean is None:
        return _nothing(sweep)
    details = _unfinished(sweep)
    if sweep.pareto:
        details.append(
            f"Weighed against {sweep.against}, the answer is a set of {len(sweep.pareto)}, the cheapest first: trial "
            f"{', '.join(str(t.number) for t in sweep.pareto)}."
        )
    control, start = sweep.control, sweep.start.get(START)
    if not winner.hmean:
        return Headline("No trial found any text on val.", tuple(details), "warning")
    below = start is not None and winner.hmean < start
    if control is None:
        text = f"{_capital(winner.name)} reached the highest hmean, {winner.hmean:.4f}."
        details.append("The sweep holds no trial of the config's own values to compare it with.")
    elif control.number == winner.number:
        text = f"No trial beat the config's own values: hmean {winner.hmean:.4f}."
        second = max((t.hmean or 0.0 for t in sweep.compared if t is not winner), default=None)
        if second is not None:
            details.append(f"The best of the others reached {second:.4f}.")
    elif control.hmean is None:
        text = f"{_capital(winner.name)} reached the highest hmean, {winner.hmean:.4f}; the config's own values failed."
    else:
        text = (
            f"{_capital(winner.name)} reached hmean {winner.hmean:.4f}, {winner.hmean - control.hmean:.4f} more than "
            f"the config's own values ({control.hmean:.4f})."
        )
        if control.was_stopped:
            details.append(f"Those were {control.ending}, after {control.epochs} of {sweep.epochs} epochs.")
    if start is not None:
        difference = winner.hmean - start
        more = "below" if difference < 0 else "above"
        details.append(
            f"That is {abs(difference):.4f} {more} the weights that training started from ({start:.4f})"
            + ("; keep those, or try a lower optim.lr." if below else ".")
        )
    if winner.took_over:
        details.append(
            f"It went on from the weights of {winner.took_over}: its values are a schedule, which no single config "
            "trains again."
        )
    elif len(sweep.compared) > 1:
        asked = sweep.is_population or _is_confirming(sweep)
        again = "" if asked else " sweep.confirm=3 trains the best ones again."
        details.append(
            f"Whether {'that is more than luck' if control is not winner else 'that is bad luck of the others'} is not "
            f"known: every trial was trained once, and the best of {len(sweep.compared)} is partly the luckiest.{again}"
        )
    return Headline(text, tuple(details), "warning" if below else "neutral")


def tiles(sweep: Sweep) -> tuple[Tile, ...]:
    """The figures under the headline."""
    found: list[Tile] = []
    winner, control, confirmed = sweep.winner, sweep.control, sweep.confirmation
    answer = confirmed.answer if confirmed is not None else None
    if confirmed is not None and answer is not None:
        spread = "" if answer.spread is None else f"mean of {len(answer.hmeans)} seeds, ± {answer.spread:.4f}"
        spread = spread if answer.is_trained else "nobody trained it"
        found.append(Tile(f"{answer.mean:.4f}", f"hmean of {answer.title}", spread))
        found += [
            Tile(f"{d.value:+.4f}", f"over {d.control}", f"95% interval {d.low:+.4f} to {d.high:+.4f}")
            for d in answer.differences
        ]
    elif winner is not None and winner.hmean is not None:
        found.append(Tile(f"{winner.hmean:.4f}", f"best hmean, {winner.name}", "one seed"))
        if control is not None and control.hmean is not None and control is not winner:
            found.append(Tile(f"{winner.hmean - control.hmean:+.4f}", "over the config's own values", control.name))
    ends = Counter(t.ending for t in sweep.trials)
    found.append(Tile(str(len(sweep.trials)), "trials", ", ".join(f"{ends[end]} {end}" for end in sorted(ends))))
    spent = sum(sweep.device_hours(t) for t in sweep.trials)
    saved = sum(sweep.saved_hours(t) for t in sweep.trials if t.stopped_by == "rule")
    again = sweep.confirm_hours
    if spent:
        shares = [f"trials {saved / (saved + spent):.0%} less than without early stopping"] if saved else []
        shares += [f"{hours(again)} of it the confirmation"] if again else []
        found.append(Tile(hours(spent + again), "of device time", "; ".join(shares)))
    if sweep.teacher_saved_s:
        found.append(Tile(hours(sweep.teacher_saved_s / 3600), "of teacher time saved", "each picture answered once"))
    return tuple(found)


def hours(value: float) -> str:
    """A time for people: `48 s`, `7.5 min`, `3.2 h`."""
    if value < 2 / 60:
        return f"{value * 3600:.0f} s"
    return f"{value * 60:.1f} min" if value < 2 else f"{value:.1f} h"


def _nothing(sweep: Sweep) -> Headline:
    if sweep.running:
        return Headline("No trial has been evaluated yet.", tuple(_unfinished(sweep)))
    first = next((f"{_capital(t.name)}: {t.reason}" for t in sweep.trials if t.reason), "")
    if not sweep.trials:
        return Headline("No trial has started.", (), "warning")
    return Headline("No trial came through.", (first,) if first else (), "warning")


def _confirmed(sweep: Sweep, found: Confirmation, answer: Arm) -> Headline:
    seeds = f"{found.seeds} fresh seed{'s' * (found.seeds != 1)}"
    rest = _unfinished(sweep)
    if answer.is_control:
        others = [arm for arm in found.arms if arm.is_trained and arm is not answer]
        best = max(others, key=lambda arm: arm.mean, default=None)
        at = f"hmean {answer.mean:.4f}" + (f", the mean of {seeds}" if answer.is_trained else "")
        if best is None:
            return Headline(f"The answer is {answer.title}, at {at}: nothing beside it came through.", tuple(rest))
        what = f"candidate, {best.name}," if not best.is_control else f"beside it, {best.title},"
        return Headline(
            f"Nothing beat {answer.title} beyond noise: keep it, at {at}.",
            (
                f"The best {what} has {best.mean:.4f} over {seeds}.",
                *map(_told, best.differences),
                *(f"{_capital(answer.title)} itself has {_told(d)}" for d in answer.differences),
                *rest,
            ),
        )
    gains = [difference.is_gain for difference in answer.differences]
    text = f"{_capital(answer.name)} is better beyond noise" if gains and all(gains) else _capital(answer.name) + " won"
    return Headline(
        f"{text}: hmean {answer.mean:.4f}, the mean of {seeds}.",
        (*(_told(difference) for difference in answer.differences), *rest),
        "good" if gains and all(gains) else "neutral",
    )


def _told(difference: Difference) -> str:
    side = "more" if difference.value >= 0 else "less"
    verdict = "beyond noise" if difference.is_gain else "within noise" if difference.high >= 0 else "worse beyond noise"
    return (
        f"{abs(difference.value):.4f} {side} than the {difference.control} "
        f"(95% interval {difference.low:+.4f} to {difference.high:+.4f}): {verdict}."
    )


def _unfinished(sweep: Sweep) -> list[str]:
    """What has no end yet."""
    count = sweep.running
    if count:
        return [f"{count} trial{'s have' if count != 1 else ' has'} no end yet: the sweep runs, or was interrupted."]
    if sweep.confirming is not None and _is_confirming(sweep):
        again = "The" if sweep.confirmation is None else "Another"
        return [f"{again} confirmation runs, or was interrupted: {sweep.confirming.progress()}."]
    return []


def _is_confirming(sweep: Sweep) -> bool:
    return sweep.confirming is not None and bool(sweep.confirming.open)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def end_of(trial: Trial, epochs: int) -> str:
    """How it ended, for a table."""
    return f"{trial.ending} at {trial.epochs}/{epochs}" if trial.was_stopped else trial.end
