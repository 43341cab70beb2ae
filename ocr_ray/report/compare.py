"""The page that sets sweeps against each other: what each reached by its cost, what it searched, where they differ."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from ocr_ray.errors import RunError
from ocr_ray.files import write_text
from ocr_ray.report.blocks import Cell, Chart, Charts, Headline, Page, Row, Section, Table, Tile
from ocr_ray.report.contents import Answer, Arm, Sweep, Trial
from ocr_ray.report.figures import DASHES, GREY, SERIES, chart, figure, hover, plain, rows_of
from ocr_ray.report.html import rendered
from ocr_ray.report.looks import short
from ocr_ray.report.page import written
from ocr_ray.report.read import read_sweep
from ocr_ray.report.verdict import hours

COMPARISON_FILE = "comparison.html"
SAME_PICTURES = ("data.val", "data.val_size", "eval.resize", "eval.postprocess")
"""Keys, or groups of them, that decide what an hmean is of."""


def write_comparison(folders: Sequence[Path], out: Path) -> Path:
    """Writes the page about the sweeps in `folders` to `out`. Returns: the file.

    Raises: RunError for fewer than two sweeps, or for one whose books cannot be read; UserError when the file cannot
        be written.
    """
    if len(folders) < 2:
        raise RunError(f"compare: expected at least two sweeps, found {len(folders)}")
    write_text(out, rendered(comparison_of([read_sweep(folder) for folder in folders])))
    return out


def comparison_of(sweeps: Sequence[Sweep]) -> Page:
    """The page; a part is there when what it shows is."""
    names = _names(sweeps)
    sections = (
        _progress(sweeps, names),
        _results(sweeps, names),
        _confirmed(sweeps, names),
        _spaces(sweeps, names),
        _configs(sweeps, names),
    )
    return Page(
        title=" · ".join(names),
        kind="comparison of sweeps",
        about=written(),
        headline=_headline(sweeps, names),
        tiles=_tiles(sweeps, names),
        sections=tuple(section for section in sections if section is not None),
    )


def _names(sweeps: Sequence[Sweep]) -> list[str]:
    """The sweeps' own; with their folders' where two have the same."""
    names = [sweep.name for sweep in sweeps]
    return [n if names.count(n) == 1 else str(s.folder) for n, s in zip(names, sweeps, strict=True)]


def _headline(sweeps: Sequence[Sweep], names: Sequence[str]) -> Headline:
    answers = [(s.answer, name) for s, name in zip(sweeps, names, strict=True)]
    reached = sorted(
        ((answer.hmean, name, answer.figure) for answer, name in answers if answer and answer.hmean), reverse=True
    )
    if not reached:
        return Headline("None of these sweeps has found any text yet.", (), "warning")
    other = [key for key in _differing(sweeps) if key.startswith(SAME_PICTURES)]
    if other:
        return Headline(
            "These sweeps were not evaluated alike, so their hmeans cannot be compared.",
            (f"They differ in {', '.join(other)}.",),
            "warning",
        )
    (best, name, figure), rest = reached[0], reached[1:]
    text = f"{name} reached the highest hmean, {figure}"
    text += f": {best - rest[0][0]:.4f} more than {rest[0][1]}, {rest[0][2]}." if rest else "."
    if all(sweep.confirmation is not None for sweep in sweeps):
        return Headline(text, ("What holds beyond noise is under Confirmation.",))
    once = [name for s, name in zip(sweeps, names, strict=True) if s.confirmation is None]
    if len(once) < len(sweeps):
        said = f"Trained once, the best of its trials, which is partly luck: {', '.join(once)}."
        return Headline(text, (said, "The others were confirmed; what holds beyond noise is under Confirmation."))
    return Headline(text, ("Each is the best of its sweep's trials, trained once: more trials have more luck.",))


def _tiles(sweeps: Sequence[Sweep], names: Sequence[str]) -> tuple[Tile, ...]:
    tiles = []
    for sweep, name in zip(sweeps, names, strict=True):
        answer = sweep.answer
        best = "–" if answer is None or answer.hmean is None else f"{answer.hmean:.4f}"
        about = [] if answer is None else [_trained(answer)]
        about += [f"{len(sweep.trials)} trials", f"{_epochs(sweep)} epochs", hours(_device_hours(sweep))]
        tiles.append(Tile(best, name, ", ".join(about)))
    return tuple(tiles)


def _trained(answer: Answer) -> str:
    """`trial 3, 2 seeds, ± 0.0035`, `trial 3, trained once` or `untouched start`."""
    if answer.arm is None:
        return f"{answer.name}, trained once"
    if not answer.arm.is_trained:
        return answer.name
    seeds = len(answer.arm.hmeans)
    spread = "" if answer.spread is None else f", ± {answer.spread:.4f}"
    return f"{answer.name}, {seeds} seed{'s' * (seeds != 1)}{spread}"


def _device_hours(sweep: Sweep) -> float:
    """Of trials and confirmation."""
    return sum(sweep.device_hours(t) for t in sweep.trials) + sweep.confirm_hours


def _epochs(sweep: Sweep) -> int:
    return sum(t.epochs for t in sweep.trials)


def _progress(sweeps: Sequence[Sweep], names: Sequence[str]) -> Section | None:
    charts = [
        _best_so_far(sweeps, names, "epochs", "best-by-epochs", "epochs spent, over all trials"),
        _best_so_far(sweeps, names, "hours", "best-by-hours", "device-minutes spent, over all trials"),
    ]
    drawn = tuple(c for c in charts if c is not None)
    if not drawn:
        return None
    lead = (
        "The highest hmean so far by what was spent, as if the trials of a sweep had run one after another in the "
        "order of their numbers."
    )
    return Section("progress", "Best so far", lead, (Charts(drawn),))


def _best_so_far(sweeps: Sequence[Sweep], names: Sequence[str], by: str, name: str, x_title: str) -> Chart | None:
    traces = []
    for i, (sweep, label) in enumerate(zip(sweeps, names, strict=True)):
        spent, best = best_so_far(sweep, by)
        if len(spent) < 2:
            continue
        traces.append(
            go.Scatter(
                x=spent,
                y=best,
                mode="lines",
                name=plain(label),
                line={"shape": "hv", "width": 2.5, "color": SERIES[i % len(SERIES)], "dash": DASHES[i % len(DASHES)]},
                **hover([f"<b>{plain(label)}</b><br>{b:.4f} after {x:.4g}" for x, b in zip(spent, best, strict=True)]),
            )
        )
    if not traces:
        return None
    drawn = figure(traces, x_title, "best hmean on val")
    drawn.update_xaxes(rangemode="tozero")
    return chart(name, f"The best hmean so far of each sweep by {x_title}.", drawn, 400)


def best_so_far(sweep: Sweep, by: str) -> tuple[list[float], list[float]]:
    """What had been spent at each evaluation, in epochs or device-minutes, and the highest hmean until then."""
    spent, before = [], 0.0
    reached: list[float] = []
    for trial in sweep.trials:
        whole = _spent(trial, sweep, by)
        last = max((e.number for e in trial.curve), default=0)
        for epoch in trial.curve:
            if epoch.hmean is not None:
                spent.append(before + whole * epoch.number / last)
                reached.append(epoch.hmean)
        before += whole
    return spent, list(accumulate(reached, max))


def _spent(trial: Trial, sweep: Sweep, by: str) -> float:
    return float(trial.epochs) if by == "epochs" else 60 * sweep.device_hours(trial)


def _results(sweeps: Sequence[Sweep], names: Sequence[str]) -> Section:
    keys = list(dict.fromkeys(knob.key for sweep in sweeps for knob in sweep.knobs))
    best = max((s.answer.hmean or 0.0 for s in sweeps if s.answer), default=None)
    rows = []
    for sweep, name in zip(sweeps, names, strict=True):
        winner, control = sweep.winner, sweep.control
        reached = None if sweep.answer is None else sweep.answer.hmean
        default = sweep.confirmation.default if sweep.confirmation is not None else control
        own = None if default is None else default.mean if isinstance(default, Arm) else default.hmean
        gain = None if reached is None or own is None else reached - own
        spent = _device_hours(sweep)
        saved = sum(sweep.saved_hours(t) for t in sweep.trials)
        rows.append(
            Row(
                (
                    Cell(name),
                    Cell("" if reached is None else f"{reached:.4f}", reached),
                    Cell("" if sweep.answer is None else _trained(sweep.answer)),
                    Cell("" if own is None else f"{own:.4f}", own),
                    Cell("" if gain is None else f"{gain:+.4f}", gain),
                    Cell(str(len(sweep.trials)), len(sweep.trials)),
                    Cell(str(_epochs(sweep)), _epochs(sweep)),
                    Cell(hours(spent), spent),
                    Cell(hours(saved) if saved else "", saved),
                    *(_value(winner, key) for key in keys),
                ),
                "winner" if reached is not None and reached == best else "",
            )
        )
    figures = ("best hmean", "of", "own values", "gain", "trials", "epochs", "device time", "left unspent")
    columns = ("sweep", *figures, *keys)
    lead = (
        "Each sweep's best trial, the trial of its config's own values, what it cost, and the best trial's values; "
        "after a confirmation its answer, and means over its seeds."
    )
    return Section("results", "Results", lead, (Table("results-table", columns, tuple(rows)),))


def _value(trial: Trial | None, key: str) -> Cell:
    value = None if trial is None else trial.values.get(key)
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    return Cell(short(value), number)


def _confirmed(sweeps: Sequence[Sweep], names: Sequence[str]) -> Section | None:
    rows = [
        Row(
            (
                Cell(name),
                Cell(arm.name),
                Cell(str(len(arm.hmeans)), len(arm.hmeans)),
                Cell(f"{arm.mean:.4f}", arm.mean),
                Cell("" if arm.spread is None else f"{arm.spread:.4f}", arm.spread),
                Cell("; ".join(map(str, arm.differences))),
            ),
            "winner" if arm.name == sweep.confirmation.winner else "control" if arm.is_control else "",
        )
        for sweep, name in zip(sweeps, names, strict=True)
        if sweep.confirmation is not None
        for arm in sweep.confirmation.arms
    ]
    if not rows:
        return None
    arms = [
        (f"{plain(name)}<br>{plain(arm.name)}", arm, SERIES[i % len(SERIES)])
        for i, (sweep, name) in enumerate(zip(sweeps, names, strict=True))
        if sweep.confirmation is not None
        for arm in sweep.confirmation.arms
    ][::-1]
    means = go.Scatter(
        x=[arm.mean for _, arm, _ in arms],
        y=list(range(len(arms))),
        mode="markers",
        marker={
            "color": [colour for *_, colour in arms],
            "size": 11,
            "symbol": ["diamond" if arm.is_control else "circle" for _, arm, _ in arms],
        },
        error_x={
            "type": "data",
            "array": [arm.spread or 0.0 for _, arm, _ in arms],
            "thickness": 2,
            "width": 6,
            "color": GREY,
        },
        **hover([f"{label}<br>{arm.mean:.4f}" for label, arm, _ in arms]),
    )
    drawn = figure([means], "hmean on val", "", legend=False)
    rows_of(drawn, [label for label, *_ in arms])
    lead = "Trained again with fresh seeds: mean and standard deviation over them. ★: the sweep's answer; ◆: a control."
    columns = ("sweep", "arm", "seeds", "mean hmean", "spread", "difference (95% interval)")
    shown = chart("confirmation", "Hmean of each sweep's candidates and controls.", drawn, 90 + 48 * len(arms))
    return Section("confirmation", "Confirmation", lead, (shown, Table("confirmation-table", columns, tuple(rows))))


def _spaces(sweeps: Sequence[Sweep], names: Sequence[str]) -> Section | None:
    keys = list(dict.fromkeys(knob.key for sweep in sweeps for knob in sweep.knobs))
    if not keys:
        return None
    spaces = [{knob.key: knob.space or "searched" for knob in sweep.knobs} for sweep in sweeps]
    rows = []
    for key in keys:
        fixed = [short(sweep.config.get(key)) or "–" for sweep in sweeps]
        cells = [Cell(space.get(key, own)) for space, own in zip(spaces, fixed, strict=True)]
        rows.append(Row((Cell(key), *cells)))
    lead = "What each sweep searched; a plain value is one that all its trials had."
    return Section("spaces", "Spaces", lead, (Table("spaces-table", ("key", *names), tuple(rows), sortable=False),))


def _configs(sweeps: Sequence[Sweep], names: Sequence[str]) -> Section | None:
    if not all(sweep.config for sweep in sweeps):
        return None
    searched = {knob.key for sweep in sweeps for knob in sweep.knobs}
    keys = [key for key in _differing(sweeps) if key not in searched]
    title = "Where their configs differ"
    if not keys:
        return Section("configs", title, "Nowhere, but for what was searched.", ())
    rows = tuple(Row((Cell(key), *(Cell(_said(s.config.get(key))) for s in sweeps))) for key in keys)
    lead = "Beside what was searched. What differs here may be what made the difference."
    blocks = (Table("configs-table", ("key", *names), rows, sortable=False),)
    return Section("configs", title, lead, blocks)


def _differing(sweeps: Sequence[Sweep]) -> list[str]:
    configs: list[Mapping[str, Any]] = [sweep.config for sweep in sweeps if sweep.config]
    keys = dict.fromkeys(key for config in configs for key in config)
    return [
        key
        for key in keys
        if key.split(".")[0] not in ("ray", "tracking") and len({repr(config.get(key)) for config in configs}) > 1
    ]


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return short(value)
