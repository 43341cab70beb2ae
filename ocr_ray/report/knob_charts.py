"""The charts that show a sweep by its knobs."""

import math
from typing import Any

import plotly.graph_objects as go

from ocr_ray.report.blocks import Chart
from ocr_ray.report.contents import Knob, Scalar, Sweep, Trial
from ocr_ray.report.figures import BLUE, GREY, ORANGE, chart, figure, hover, lines, plain, rows_of
from ocr_ray.report.importance import Importance
from ocr_ray.report.looks import CONTROL, UNBEATEN, WINNER, by_look, look_of, short, told

AXIS_PX = 120
"""Least distance of the axes of parallel coordinates."""


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
    drawn = figure(traces, "share of hmean's spread", "")
    drawn.update_xaxes(range=[0, 1.02])
    rows_of(drawn, [broken(key) for key in reversed(keys)])
    drawn.update_layout(barmode="overlay")
    says = "Importance of each knob by two evaluators, with the spread over resampled trials and the level of chance."
    return chart("importance", says, drawn, 120 + 58 * len(keys))


def schedules(sweep: Sweep) -> tuple[Chart, ...]:
    """Of a population: each knob's value by epoch, a line for each trial."""
    found = [_schedule(sweep, knob, i) for i, knob in enumerate(sweep.knobs)]
    return tuple(chart for chart in found if chart is not None)


def _schedule(sweep: Sweep, knob: Knob, index: int) -> Chart | None:
    points = {t.number: [(e.number, e.values[knob.key]) for e in t.curve if knob.key in e.values] for t in sweep.trials}
    traces = [
        go.Scatter(
            x=[epoch for epoch, _ in points[trial.number]],
            y=[value for _, value in points[trial.number]],
            mode="lines",
            name=look.name,
            legendgroup=look.name,
            showlegend=i == 0,
            opacity=look.opacity,
            line={"color": look.colour, "width": look.width, "dash": look.dash, "shape": "hv"},
            **hover([lines(f"<b>{trial.name}</b>", plain(f"epoch {e}: {short(v)}")) for e, v in points[trial.number]]),
        )
        for look, trials in by_look(sweep, [t for t in sweep.trials if points[t.number]])
        for i, trial in enumerate(trials)
    ]
    if not traces:
        return None
    drawn = figure(traces, "epoch", knob.key)
    if knob.is_log:
        drawn.update_yaxes(type="log", tickvals=log_ticks(knob), ticktext=[f"{tick:g}" for tick in log_ticks(knob)])
    return chart(f"schedule-{index}", f"{knob.key} by epoch, a line for each trial.", drawn, 280)


def slices(sweep: Sweep) -> tuple[Chart, ...]:
    """Hmean by each knob's value, a small chart each."""
    return tuple(
        _slice(sweep, knob, i) for i, knob in enumerate(sweep.knobs) if sweep.compared and len(set(knob.values)) > 1
    )


def _slice(sweep: Sweep, knob: Knob, index: int) -> Chart:
    traces = []
    trials = [t for t in sweep.compared if t.values.get(knob.key) is not None]
    choices = list(knob.scale.choices) if knob.is_choice else []
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
    elif not knob.is_log:
        drawn.update_xaxes(nticks=7)
    else:
        drawn.update_xaxes(tickvals=log_ticks(knob), ticktext=[f"{tick:g}" for tick in log_ticks(knob)])
    return chart(f"slice-{index}", f"Hmean by {knob.key}, a mark for each trial.", drawn, 280)


def _aside(trial: Trial) -> float:
    """Between -0.18 and 0.18, the same every time."""
    return (trial.number * 0.618 % 1 - 0.5) * 0.36


def log_ticks(knob: Knob) -> list[float]:
    """1, 2 and 5 of each decade; over a wide axis its decades alone. Plotly's own would lack most of their digits."""
    low, high = knob.scale.low, knob.scale.high
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
        special = look in (WINNER, CONTROL, UNBEATEN)
        better = not special and (trial.hmean or 0.0) >= cut
        name = look.name if special else "of the better quarter" if better else "others"
        colour = look.colour if special else BLUE if better else GREY
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
                line={"color": colour, "width": look.width if special else 1.8 if better else 1.1},
                marker={"color": colour, "size": 6, "symbol": look.symbol if special else "circle"},
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
            for choice in knob.scale.choices[1:-1]:
                drawn.add_annotation(
                    text=plain(short(choice)), x=x, y=place(knob, choice), xanchor="left", xshift=6, showarrow=False
                )
    says = "Parallel coordinates: a line for each trial over the values of its knobs to its hmean."
    return chart("parallel-coordinates", says, drawn, 400, least_width=AXIS_PX * (len(knobs) + 1))


def ends(knob: Knob) -> tuple[str, str]:
    """What stands at the foot and at the head of the knob's axis."""
    if knob.is_choice:
        return short(knob.scale.choices[0]), short(knob.scale.choices[-1]) if len(knob.scale.choices) > 1 else ""
    low, high = knob.scale.low, knob.scale.high
    return f"{low:.3g}", f"{high:.3g}"


def place(knob: Knob, value: Scalar) -> float | None:
    """Of a value on the knob's axis, from 0 to 1; None where the trial had no such knob."""
    if value is None:
        return None
    if knob.is_choice:
        count = len(knob.scale.choices)
        return knob.scale.choices.index(value) / (count - 1) if count > 1 else 0.5
    low, high = knob.scale.low, knob.scale.high
    assert isinstance(value, int | float)
    if high == low:
        return 0.5
    if knob.is_log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def broken(key: str) -> str:
    """A dotted key over several lines, so that it fits beside or under an axis."""
    return plain(key).replace(".", ".<br>")
