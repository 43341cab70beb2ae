"""The charts of one sweep."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from ocr_ray.report.blocks import Chart
from ocr_ray.report.contents import Confirmation, Knob, Sweep, Trial
from ocr_ray.report.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    chart,
    figure,
    hover,
    level,
    lines,
    moment,
    plain,
    rows_of,
)
from ocr_ray.report.importance import Importance
from ocr_ray.report.verdict import START, TEACHER, end_of
from ocr_ray.spaces import LogUniform, QUniform, RandInt, Scalar, Uniform

AXIS_PX = 120
"""Least distance of the axes of parallel coordinates."""


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
CONTROL = Look("the config's own values", GREEN, "solid", "diamond", 3.0, 10, 1.0)
FINISHED = Look("finished", BLUE, "solid", "circle", 1.5, 7, 0.85)
STOPPED = Look("stopped before its end", GREY, "dash", "x", 1.3, 8, 0.9)
FAILED = Look("failed", PURPLE, "dot", "triangle-down", 1.3, 9, 0.9)
RUNNING = Look("running", BLUE, "dot", "circle-open", 1.5, 8, 0.9)
LOOKS = (FINISHED, STOPPED, FAILED, RUNNING, CONTROL, WINNER)
"""From back to front."""


def look_of(trial: Trial, sweep: Sweep) -> Look:
    """What the trial is drawn as."""
    if trial is sweep.winner:
        return WINNER
    if trial is sweep.control:
        return CONTROL
    if trial.end.startswith("stopped"):
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


def learning_curves(sweep: Sweep) -> Chart | None:
    """Hmean by epoch of every trial, with the rungs. None where nothing was evaluated."""
    traces = []
    curves = {t.number: [(e.number, e.hmean) for e in t.curve if e.hmean is not None] for t in sweep.trials}
    for look, trials in by_look(sweep, [t for t in sweep.trials if curves[t.number]]):
        for i, trial in enumerate(trials):
            points = curves[trial.number]
            about = told(trial, sweep)
            traces.append(
                go.Scatter(
                    x=[epoch for epoch, _ in points],
                    y=[hmean for _, hmean in points],
                    mode="lines+markers",
                    name=look.name,
                    legendgroup=look.name,
                    showlegend=i == 0,
                    opacity=look.opacity,
                    line={"color": look.colour, "width": look.width, "dash": look.dash},
                    marker={
                        "color": look.colour,
                        "symbol": ["circle"] * (len(points) - 1) + [look.symbol],
                        "size": [4] * (len(points) - 1) + [look.size],
                        "opacity": 1,
                        "line": {"width": 0},  # sizes in a list otherwise bring a white edge
                    },
                    **hover([lines(about, f"epoch {epoch}: {hmean:.4f}") for epoch, hmean in points]),
                )
            )
    if not traces:
        return None
    drawn = figure(traces, "epoch", "hmean on val")
    drawn.update_xaxes(range=[0, sweep.epochs * 1.03])
    drawn.update_yaxes(rangemode="tozero")
    for at in sweep.rungs:
        moment(drawn, at, f"rung {at}")
    if START in sweep.start:
        level(drawn, sweep.start[START], f"starting weights {sweep.start[START]:.4f}")
    if TEACHER in sweep.start:
        level(drawn, sweep.start[TEACHER], f"teacher {sweep.start[TEACHER]:.4f}")
    return chart("learning-curves", "Hmean on val by epoch, a line for each trial.", drawn, 440)


def importance_chart(found: Importance) -> Chart | None:
    """Each knob's share by each evaluator, with its spread and what chance gives. None where it cannot be told."""
    if not found.shares:
        return None
    keys = list(dict.fromkeys(share.key for share in found.shares))
    names = list(dict.fromkeys(share.evaluator for share in found.shares))
    traces: list[Any] = []
    for n, (name, colour, symbol) in enumerate(zip(names, (BLUE, ORANGE), ("circle", "square"), strict=False)):
        shares = [s for s in found.shares if s.evaluator == name]
        places = [len(keys) - 1 - keys.index(s.key) + (0.17 if n == 0 else -0.17) for s in shares]
        traces.append(
            go.Bar(
                x=[s.chance for s in shares],
                y=places,
                width=0.3,
                orientation="h",
                name="what chance gives",
                legendgroup="chance",
                showlegend=n == 0,
                marker={"color": GREY, "opacity": 0.28},
                hoverinfo="skip",
            )
        )
        traces.append(
            go.Scatter(
                x=[s.value for s in shares],
                y=places,
                mode="markers",
                name=name,
                marker={"color": colour, "size": 10, "symbol": symbol},
                error_x={
                    "type": "data",
                    "array": [max(0.0, s.high - s.value) for s in shares],
                    "arrayminus": [max(0.0, s.value - s.low) for s in shares],
                    "color": colour,
                    "thickness": 2,
                    "width": 5,
                },
                **hover(
                    [
                        lines(
                            f"<b>{plain(s.key)}</b>",
                            f"{s.evaluator}: {s.value:.2f}",
                            f"over trials drawn again: {s.low:.2f} to {s.high:.2f}",
                            f"shuffled hmeans stay below {s.chance:.2f}",
                        )
                        for s in shares
                    ]
                ),
            )
        )
    drawn = figure(traces, "share of the differences in hmean", "")
    drawn.update_xaxes(range=[0, 1.02])
    rows_of(drawn, [broken(key) for key in reversed(keys)])
    drawn.update_layout(barmode="overlay")
    says = "Importance of each knob by two evaluators, with the spread over resampled trials and the level of chance."
    return chart("importance", says, drawn, 120 + 58 * len(keys))


def slices(sweep: Sweep) -> tuple[Chart, ...]:
    """Hmean by each knob's value, a small chart each."""
    return tuple(
        _slice(sweep, knob, i) for i, knob in enumerate(sweep.knobs) if sweep.compared and len(set(knob.values)) > 1
    )


def _slice(sweep: Sweep, knob: Knob, index: int) -> Chart:
    traces = []
    trials = [t for t in sweep.compared if t.values.get(knob.key) is not None]
    choices = list(knob.choices) if knob.is_choice else []
    for look, found in by_look(sweep, trials):
        traces.append(
            go.Scatter(
                # Trials of one choice beside one another, else they hide one another.
                x=[choices.index(t.values[knob.key]) + _aside(t) if choices else t.values[knob.key] for t in found],
                y=[t.hmean for t in found],
                mode="markers",
                name=look.name,
                marker={"color": look.colour, "symbol": look.symbol, "size": look.size + 2, "opacity": look.opacity},
                **hover([told(t, sweep) for t in found]),
            )
        )
    drawn = figure(traces, knob.key, "hmean on val", "log" if knob.is_log else "linear", legend=False)
    if choices:
        drawn.update_xaxes(
            tickvals=list(range(len(choices))),
            ticktext=[plain(short(c)) for c in choices],
            range=[-0.5, len(choices) - 0.5],
            showgrid=False,
        )
    elif knob.is_log:
        drawn.update_xaxes(tickvals=log_ticks(knob), ticktext=[f"{tick:g}" for tick in log_ticks(knob)])
    return chart(f"slice-{index}", f"Hmean by {knob.key}, a mark for each trial.", drawn, 280)


def _aside(trial: Trial) -> float:
    """Between -0.18 and 0.18, the same every time."""
    return (trial.number * 0.618 % 1 - 0.5) * 0.36


def log_ticks(knob: Knob) -> list[float]:
    """1, 2 and 5 of each decade; over a wide axis its decades alone. Plotly's own would lack most of their digits."""
    low, high = bounds(knob)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 60 else (1, 3) if high / low < 1500 else (1,)
    return [float(f"{step}e{decade}") for decade in decades for step in steps]


def parallel_coordinates(sweep: Sweep) -> Chart | None:
    """A line for each trial over the knobs' axes to its hmean. None with fewer than two knobs or trials."""
    trials = sweep.compared
    knobs = [k for k in sweep.knobs if k.values]
    if len(trials) < 2 or len(knobs) < 2:
        return None
    hmeans = [t.hmean or 0.0 for t in trials]
    low, high = min(hmeans), max(hmeans)
    # The better quarter stands out, and the others are its background.
    cut = sorted(hmeans)[-max(1, math.ceil(len(trials) / 4))]
    traces = []
    named: set[str] = set()
    for trial in sorted(trials, key=lambda t: t.hmean or 0.0):
        look = look_of(trial, sweep)
        better = look not in (WINNER, CONTROL) and (trial.hmean or 0.0) >= cut
        name = look.name if look in (WINNER, CONTROL) else "of the better quarter" if better else "others"
        colour = look.colour if look in (WINNER, CONTROL) else BLUE if better else GREY
        places = [place(k, trial.values.get(k.key)) for k in knobs]
        places.append(((trial.hmean or 0.0) - low) / (high - low) if high > low else 0.5)
        traces.append(
            go.Scatter(
                x=list(range(len(places))),
                y=places,
                mode="lines+markers",
                name=name,
                legendgroup=name,
                showlegend=name not in named,
                opacity=1.0 if name != "others" else 0.55,
                line={"color": colour, "width": look.width if look in (WINNER, CONTROL) else 1.8 if better else 1.1},
                marker={"color": colour, "size": 6, "symbol": look.symbol if look in (WINNER, CONTROL) else "circle"},
                **hover([told(trial, sweep)] * len(places)),
            )
        )
        named.add(name)
    drawn = figure(traces, "", "", top=8)
    drawn.update_xaxes(
        tickvals=list(range(len(knobs) + 1)),
        ticktext=[*(broken(k.key) for k in knobs), "<b>hmean</b>"],
        range=[-0.35, len(knobs) + 0.35],
        showgrid=False,
        showline=False,
        ticks="",
        ticklabelstandoff=20,
    )
    drawn.update_yaxes(visible=False, range=[-0.1, 1.1])
    for x, (bottom, top) in enumerate([*(ends(k) for k in knobs), (f"{low:.4f}", f"{high:.4f}")]):
        drawn.add_shape(type="line", x0=x, x1=x, y0=0, y1=1, line={"width": 1}, layer="below")
        for text, y, anchor in ((bottom, -0.02, "top"), (top, 1.02, "bottom")):
            drawn.add_annotation(text=plain(text), x=x, y=y, yanchor=anchor, showarrow=False)
    for x, knob in enumerate(knobs):
        if knob.is_choice:
            for choice in knob.choices[1:-1]:
                drawn.add_annotation(
                    text=plain(short(choice)), x=x, y=place(knob, choice), xanchor="left", xshift=6, showarrow=False
                )
    says = "Parallel coordinates: a line for each trial over the values of its knobs to its hmean."
    return chart("parallel-coordinates", says, drawn, 400, least_width=AXIS_PX * (len(knobs) + 1))


def bounds(knob: Knob) -> tuple[float, float]:
    """Of the knob's axis: its space, widened to what trials took."""
    taken = [float(v) for v in knob.values if isinstance(v, int | float)]
    match knob.distribution:
        case LogUniform(low, high) | Uniform(low, high) | RandInt(low, high) | QUniform(low, high, _):
            return min(low, *taken), max(high, *taken)
        case _:
            return min(taken), max(taken)


def ends(knob: Knob) -> tuple[str, str]:
    """What stands at the foot and at the head of the knob's axis."""
    if knob.is_choice:
        return short(knob.choices[0]), short(knob.choices[-1]) if len(knob.choices) > 1 else ""
    low, high = bounds(knob)
    return f"{low:.3g}", f"{high:.3g}"


def place(knob: Knob, value: Scalar) -> float | None:
    """Of a value on the knob's axis, from 0 to 1; None where the trial had no such knob."""
    if value is None:
        return None
    if knob.is_choice:
        count = len(knob.choices)
        return knob.choices.index(value) / (count - 1) if count > 1 else 0.5
    low, high = bounds(knob)
    assert isinstance(value, int | float)
    if high == low:
        return 0.5
    if knob.is_log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def confirmation_charts(found: Confirmation) -> tuple[Chart, ...]:
    """Each arm's seeds, mean and spread; and its differences from the controls with their intervals."""
    arms = list(reversed(found.arms))
    names = [plain(arm.name) for arm in arms]
    colours = [ORANGE if arm.name == found.winner else GREEN if arm.is_control else BLUE for arm in arms]
    seeds = go.Scatter(
        x=[h for arm in arms for h in arm.hmeans],
        y=[y - 0.2 for y, arm in enumerate(arms) for _ in arm.hmeans],
        mode="markers",
        name="one seed",
        marker={"color": GREY, "size": 7, "symbol": "line-ns-open", "line": {"width": 2}},
        **hover([f"<b>{name}</b><br>{h:.4f}" for name, arm in zip(names, arms, strict=True) for h in arm.hmeans]),
    )
    means = go.Scatter(
        x=[arm.mean for arm in arms],
        y=list(range(len(arms))),
        mode="markers",
        name="mean and standard deviation over the seeds",
        marker={
            "color": colours,
            "size": 12,
            "symbol": ["star" if a.name == found.winner else "diamond" if a.is_control else "circle" for a in arms],
        },
        error_x={"type": "data", "array": [arm.spread or 0.0 for arm in arms], "thickness": 2, "width": 6},
        **hover(
            [
                f"<b>{name}</b><br>{arm.mean:.4f}" + (f" ± {arm.spread:.4f}" if arm.spread is not None else "")
                for name, arm in zip(names, arms, strict=True)
            ]
        ),
    )
    drawn = figure([seeds, means], "hmean on val", "")
    rows_of(drawn, names)
    height = 130 + 52 * len(arms)
    charts = [chart("confirmation", "Hmean of each candidate and control over fresh seeds.", drawn, height)]
    pairs = [(arm, d) for arm in arms for d in reversed(arm.differences)]
    if pairs:
        labels = [f"{plain(arm.name)}<br>less {plain(d.control)}" for arm, d in pairs]
        intervals = go.Scatter(
            x=[d.value for _, d in pairs],
            y=list(range(len(pairs))),
            mode="markers",
            showlegend=False,
            marker={"color": [ORANGE if d.is_gain else GREY for _, d in pairs], "size": 11},
            error_x={
                "type": "data",
                "array": [d.high - d.value for _, d in pairs],
                "arrayminus": [d.value - d.low for _, d in pairs],
                "thickness": 2,
                "width": 6,
            },
            **hover(
                [
                    f"{label}<br>{d.value:+.4f} ({d.low:+.4f} to {d.high:+.4f})"
                    for label, (_, d) in zip(labels, pairs, strict=True)
                ]
            ),
        )
        apart = figure([intervals], "difference in hmean, with its 95% interval", "", legend=False)
        rows_of(apart, labels)
        apart.add_shape(type="line", x0=0, x1=0, y0=0, y1=1, yref="y domain", line={"width": 1.5}, layer="below")
        says = "Differences from the controls, with 95% intervals over seeds and pictures."
        charts.append(chart("differences", says, apart, 90 + 52 * len(pairs)))
    return tuple(charts)


def cost(sweep: Sweep) -> Chart | None:
    """Device time by trial, with what ending it early left unspent. None where no time is known."""
    trials = [t for t in sweep.trials if sweep.device_hours(t)]
    if not trials:
        return None
    most = max(sweep.device_hours(t) + sweep.saved_hours(t) for t in trials)
    unit, factor = ("hours", 1.0) if most >= 2 else ("minutes", 60.0) if most >= 2 / 60 else ("seconds", 3600.0)
    traces: list[Any] = []
    for look, found in by_look(sweep, trials):
        traces.append(
            go.Bar(
                x=[t.number for t in found],
                y=[factor * sweep.device_hours(t) for t in found],
                name=look.name,
                marker={"color": look.colour, "opacity": 0.9},
                **hover([lines(told(t, sweep), f"{factor * sweep.device_hours(t):.1f} device-{unit}") for t in found]),
                textposition="none",
            )
        )
    saved = [t for t in trials if sweep.saved_hours(t)]
    if saved:
        traces.append(
            go.Bar(
                x=[t.number for t in saved],
                y=[factor * sweep.saved_hours(t) for t in saved],
                name="left unspent by ending it early",
                marker={
                    "color": "rgba(138,143,152,0.12)",
                    "line": {"color": GREY, "width": 1},
                    "pattern": {"shape": "/", "fgcolor": GREY, "size": 6, "solidity": 0.25},
                },
                **hover([f"<b>{t.name}</b><br>about {factor * sweep.saved_hours(t):.1f} {unit} saved" for t in saved]),
                textposition="none",
            )
        )
    drawn = figure(traces, "trial", f"device-{unit}")
    drawn.update_layout(barmode="stack", bargap=0.25)
    drawn.update_xaxes(dtick=1 if len(trials) <= 20 else 5, showgrid=False)
    return chart("cost", "Device time of each trial, and what ending it early left unspent.", drawn, 320)


def broken(key: str) -> str:
    """A dotted key over several lines, so that it fits beside or under an axis."""
    return plain(key).replace(".", ".<br>")
