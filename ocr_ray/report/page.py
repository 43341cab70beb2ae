"""The page about one sweep: what it holds, in which order, and the file.

The file needs nothing beside it and asks no network for anything; its own policy forbids it to.
"""

import datetime
import shlex
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from ocr_ray.files import write_text
from ocr_ray.report import charts, knob_charts
from ocr_ray.report.blocks import Block, Cell, Charts, Code, Page, Prose, Row, Section, Table
from ocr_ray.report.contents import Answer, Confirmation, Scalar, Sweep, Trial
from ocr_ray.report.html import rendered
from ocr_ray.report.importance import Importance, importance
from ocr_ray.report.looks import short
from ocr_ray.report.pictures import worst_pictures
from ocr_ray.report.read import CONFIG_FILE, REPORT_FILE, read_sweep
from ocr_ray.report.stopped import BY, comparisons, rule_in_force, saved_by, told_the_end
from ocr_ray.report.verdict import end_of, headline, hours, tiles


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Writes the page about the sweep in `folder`, by default to `report.html` in it. Returns: the file.

    Raises: RunError when the sweep's books cannot be read, UserError when the file cannot be written.
    """
    out = out or folder / REPORT_FILE
    write_text(out, rendered(page_of(read_sweep(folder))))
    return out


def page_of(sweep: Sweep) -> Page:
    """The page; a part is there when what it shows is."""
    sections = (
        _curves(sweep),
        _confirmation(sweep.confirmation),
        _tested(sweep),
        _pareto(sweep),
        _importance(sweep),
        _schedules(sweep),
        _slices(sweep),
        _parallel(sweep),
        _cost(sweep),
        _trials(sweep),
        _pictures(sweep),
        _again(sweep),
    )
    return Page(
        title=sweep.name,
        kind="sweep",
        about=_about(sweep),
        headline=headline(sweep),
        tiles=tiles(sweep),
        sections=tuple(section for section in sections if section is not None),
    )


def _about(sweep: Sweep) -> str:
    config = sweep.config
    parts = [f"recipe {config['recipe']}"] if config.get("recipe") else []
    parts += [f"{sweep.epochs} epochs a trial"] if sweep.epochs else []
    parts += [f"searcher {config['sweep.searcher']}"] if config.get("sweep.searcher") else []
    if sweep.is_population:
        parts.append("population based training")
    elif rule := rule_in_force(sweep):
        parts.append(rule)
    val = config.get("data.val")
    if val:
        files = val if isinstance(val, list) else [val]
        parts.append("val " + ", ".join("/".join(Path(file).parts[-2:]) for file in files))
    return " · ".join([*parts, written()])


def written() -> str:
    """When this page was, and by which version of ours."""
    now = datetime.datetime.now().astimezone()
    return f"written {now:%Y-%m-%d %H:%M} by ocr_ray {version('ocr-ray')}"


def _curves(sweep: Sweep) -> Section | None:
    drawn = charts.learning_curves(sweep)
    if drawn is None:
        return None
    lead = "Hmean on val after each evaluation."
    if sweep.winner is not None:
        confirmed = sweep.confirmation is not None
        lead += " ★: the trial whose values won." if confirmed else " ★: where the winner's kept weights come from."
    compared, said = comparisons(sweep), told_the_end(sweep)
    lead += f" {compared}" if compared else ""
    return Section("curves", "Learning curves", lead, (drawn, said) if said is not None else (drawn,))


def _confirmation(found: Confirmation | None) -> Section | None:
    if found is None:
        return None
    lead = (
        f"The best trials and the controls, trained again with {found.seeds} fresh seeds: the search itself picks what "
        "was lucky once. The winner is picked here, by 95% intervals over seeds and pictures."
    )
    has_keep = any(arm.keep is not None for arm in found.arms)
    rows = tuple(
        Row(
            (
                Cell(arm.name),
                Cell(str(len(arm.hmeans)) if arm.is_trained else "", len(arm.hmeans)),
                Cell(f"{arm.mean:.4f}", arm.mean),
                Cell("" if arm.spread is None else f"{arm.spread:.4f}", arm.spread),
                *((Cell("" if arm.keep is None else f"{arm.keep:.4f}", arm.keep),) if has_keep else ()),
                Cell("; ".join(map(str, arm.differences))),
            ),
            "winner" if arm.name == found.winner else "control" if arm.is_control else "",
        )
        for arm in found.arms
    )
    kept = ("hmean on keep",) if has_keep else ()
    columns = ("arm", "seeds", "mean hmean", "spread", *kept, "difference (95% interval)")
    table = Table("confirmation-table", columns, rows)
    return Section("confirmation", "Confirmation", lead, (*charts.confirmation_charts(found), table))


def _tested(sweep: Sweep) -> Section | None:
    if not sweep.tested:
        return None
    rows = tuple(
        Row((Cell(name), Cell(f"{hmean:.4f}", hmean), Cell(str(pictures), pictures)))
        for name, hmean, pictures in sweep.tested
    )
    lead = "Pictures that took no part in the search, evaluated once at its end."
    return Section("test", "On the test set", lead, (Table("test-table", ("weights", "hmean", "pictures"), rows),))


def _pareto(sweep: Sweep) -> Section | None:
    drawn = charts.pareto_front(sweep)
    if drawn is None:
        return None
    lead = "No trial has both a higher hmean and a lower cost than one on the front."
    return Section("pareto", "Pareto front", lead, (drawn,))


def _importance(sweep: Sweep) -> Section | None:
    if not sweep.compared or len(sweep.knobs) < 2 or sweep.is_population:
        return None
    found = importance(sweep)
    drawn = knob_charts.importance_chart(found)
    title = "Which knobs mattered"
    if drawn is None:
        return Section("importance", title, f"{found.why[:1].upper()}{found.why[1:]}.", ())
    note = (
        "A share is a knob's part in the differences of hmean; all shares of an evaluator add up to 1, so that some "
        "knob leads even in noise. PED-ANOVA asks what sets the better quarter of the trials apart, fANOVA what "
        "explains hmean over the whole space. Whiskers: the middle 90% over trials drawn again with replacement. Grey: "
        "what 95% of the shares stay below when hmeans are dealt out at random."
    )
    if any(t.was_stopped for t in sweep.trials):
        note += " Trials that were ended before their last epoch count with the hmean they had reached."
    return Section("importance", title, _which(found), (drawn, Prose(note)))


def _which(found: Importance) -> str:
    told = found.told
    if not told:
        return (
            f"No knob stands out of chance over these {found.trials} trials: they tell too little, or the knobs matter "
            "too little within the space."
        )
    said = ", ".join(f"{key} (by {' and '.join(by)})" for key, by in told.items())
    return f"Beyond what chance gives over {found.trials} trials: {said}."


def _schedules(sweep: Sweep) -> Section | None:
    drawn = knob_charts.schedules(sweep)
    if not drawn:
        return None
    lead = (
        "What each trial trained with, epoch by epoch. Where a line jumps the trial had gone on from the weights of a "
        "better one, with values near that one's; which of them made it better, no trial shows by itself."
    )
    return Section("schedules", "Values on the way", lead, (Charts(drawn),))


def _slices(sweep: Sweep) -> Section | None:
    drawn = () if sweep.is_population else knob_charts.slices(sweep)
    if not drawn or len(sweep.compared) < 2:
        return None
    lead = "Each trial's best hmean by the value of one knob; the others differ as well."
    return Section("slices", "Slices", lead, (Charts(drawn),))


def _parallel(sweep: Sweep) -> Section | None:
    drawn = None if sweep.is_population else knob_charts.parallel_coordinates(sweep)
    if drawn is None:
        return None
    lead = "A line for each trial; the better quarter stands out. Point at a line for its values."
    return Section("parallel", "Parallel coordinates", lead, (drawn,))


def _cost(sweep: Sweep) -> Section | None:
    drawn = charts.cost(sweep)
    if drawn is None:
        return None
    spent = sum(sweep.device_hours(t) for t in sweep.trials)
    lead = f"All trials together took {hours(spent)} of device time"
    again = sweep.confirm_hours
    if not any(t.device_hours is not None for t in sweep.trials):
        lead += ": each from its start to its end, its workers' start included, times its workers"
    said = [lead + ".", *([f"The confirmation took {hours(again)} more, which the bars leave out."] if again else [])]
    for by, words in BY.items():
        trials, saved = saved_by(sweep, by)
        if saved:
            was = "was" if len(trials) == 1 else "were"
            said.append(
                f"That {len(trials)} of them {was} {words} left about {hours(saved)} unspent, going by their epochs."
            )
    if sweep.teacher_saved_s:
        said.append(
            f"The shared teacher's answers spared the trials about {hours(sweep.teacher_saved_s / 3600)} of its time."
        )
    return Section("cost", "Cost", " ".join(said), (drawn,))


def _trials(sweep: Sweep) -> Section | None:
    if not sweep.trials:
        return None
    keys = [knob.key for knob in sweep.knobs]
    reasons, takeovers = any(t.reason for t in sweep.trials), any(t.took_over for t in sweep.trials)
    more: list[tuple[str, Callable[[Trial], float | None], str]] = [
        ("hmean on keep", lambda t: t.keep, ".4f"),
        ("parameters", lambda t: t.parameters, ",.0f"),
        ("latency, ms", lambda t: t.latency_ms, ".1f"),
    ]
    # Every student has parameters; they are worth a column where trials differ in them.
    more = [m for m in more if len({m[1](t) for t in sweep.compared} - {None}) > (m[0] == "parameters")]
    rows = tuple(
        Row(
            (
                Cell(str(t.number), t.number),
                Cell("" if t.hmean is None else f"{t.hmean:.4f}", t.hmean),
                *(Cell("" if (v := of(t)) is None else format(v, form), v) for _, of, form in more),
                *(_value(t.values.get(key)) for key in keys),
                Cell(f"{t.epochs}", t.epochs),
                Cell(end_of(t, sweep.epochs)),
                *((Cell(t.took_over),) if takeovers else ()),
                *((Cell(t.reason),) if reasons else ()),
                Cell(hours(sweep.device_hours(t)), sweep.device_hours(t)),
            ),
            "winner" if t is sweep.winner else "control" if t is sweep.control else "",
        )
        for t in sweep.trials
    )
    last = (
        *("epochs", "end"),
        *(("went on from",) if takeovers else ()),
        *(("reason",) if reasons else ()),
        "device time",
    )
    columns = ("trial", "hmean", *(name for name, *_ in more), *keys, *last)
    lead = "A click on a column's head sorts by it. "
    if sweep.winner is None:
        lead += "The config's own values are marked ◆."
    else:
        whose = "The winner" if sweep.confirmation is None else "The trial whose values won the confirmation"
        lead += f"{whose} is marked ★, the config's own values ◆."
    return Section("trials", "All trials", lead, (Table("trials-table", columns, rows),))


def _value(value: Scalar) -> Cell:
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    return Cell(short(value), number)


def _pictures(sweep: Sweep) -> Section | None:
    if not sweep.compared:
        return None
    found = worst_pictures(sweep)
    blocks: tuple[Block, ...] = found.pictures
    if blocks:
        blocks = (*blocks, Prose("Blue: labelled. Orange: found. Thin grey: labelled as not to be read."))
    answer = sweep.answer
    won = answer is None or answer.arm is None or not answer.arm.is_control
    title = "The winner's worst pictures" if won or answer is None else f"The worst pictures of {_title(answer)}"
    return Section("pictures", title, found.note, blocks)


def _title(answer: Answer) -> str:
    """Within a sentence."""
    return answer.name if answer.arm is None else answer.arm.title


def _again(sweep: Sweep) -> Section | None:
    config = sweep.folder / CONFIG_FILE
    answer, winner = sweep.answer, sweep.winner
    if not config.exists():
        return None
    blocks: list[Block] = []
    if answer is not None:
        is_default = answer.arm is not None and answer.arm.is_control and answer.arm.is_trained
        if is_default or (winner is not None and not winner.took_over):
            values = dict(winner.values) if winner is not None and not is_default else {}
            if answer.arm is not None and answer.arm.seed is not None:
                values["run.seed"] = answer.arm.seed  # of the weights that are handed out
            typed = [f"{key}={_typed(value)}" for key, value in values.items() if value is not None]
            title = "Train the winner again" if answer.arm is None else f"Train {answer.arm.title} again"
            blocks.append(Code(title, _command("ocr-ray train", str(config), *typed)))
        val = sweep.config.get("data.val")
        if answer.weights is not None and val:
            labels = val if isinstance(val, list) else [val]
            root = sweep.config.get("data.root")
            rooted = ["--root", str(root)] if root else []
            commands = [_command("ocr-ray eval", str(answer.weights), str(label), *rooted) for label in labels]
            title = "Evaluate its weights" if winner is not None else f"Evaluate the weights of {_title(answer)}"
            blocks.append(Code(title, "\n".join(commands)))
    spaces = [f"{knob.key}: {knob.space}" for knob in sweep.knobs if knob.space]
    if len(spaces) == len(sweep.knobs) and spaces:
        blocks.append(Code("The search space (space.yaml)", "\n".join(spaces)))
        again = _command("ocr-ray tune", str(config), "space.yaml", "--name", f"{sweep.name}-again")
        blocks.append(Code("Search again", again))
    return Section("again", "How to do it again", "", tuple(blocks)) if blocks else None


def _typed(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _command(start: str, *arguments: str) -> str:
    parts = [shlex.quote(argument) for argument in arguments]
    return f"{start} {' '.join(parts)}"
