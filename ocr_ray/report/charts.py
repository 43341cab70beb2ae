"""The charts that show a sweep by its trials: learning curves, cost, confirmation."""

from typing import Any

import plotly.graph_objects as go

from ocr_ray.report.blocks import Chart
from ocr_ray.report.contents import Confirmation, Sweep
from ocr_ray.report.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    chart,
    figure,
    hover,
    level,
    lines,
    moment,
    plain,
    rows_of,
)
from ocr_ray.report.looks import by_look, told
from ocr_ray.report.verdict import START, TEACHER


def learning_curves(sweep: Sweep) -> Chart | None:
    """Hmean by epoch of every trial, with the rungs. None where nothing was evaluated."""
    traces = []
    curves = {t.number: [(e.number, e.hmean) for e in t.curve if e.hmean is not None] for t in sweep.trials}
    for look, trials in by_look(sweep, [t for t in sweep.trials if curves[t.number]]):
        for i, trial in enumerate(trials):
            points = curves[trial.number]
            about = told(trial, sweep)
            # The winner is marked where its kept weights come from, others where they end.
            marked = max(range(len(points)), key=lambda n: points[n][1]) if trial is sweep.winner else len(points) - 1
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
                        "symbol": [look.symbol if n == marked else "circle" for n in range(len(points))],
                        "size": [look.size if n == marked else 4 for n in range(len(points))],
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
        moment(drawn, at, f"{'rung' if sweep.rule is not None and sweep.rule.rule == 'asha' else 'epoch'} {at}")
    if START in sweep.start:
        level(drawn, sweep.start[START], f"starting weights {sweep.start[START]:.4f}")
    if TEACHER in sweep.start:
        level(drawn, sweep.start[TEACHER], f"teacher {sweep.start[TEACHER]:.4f}")
    return chart("learning-curves", "Hmean on val by epoch, a line for each trial.", drawn, 440)


def pareto_front(sweep: Sweep) -> Chart | None:
    """Hmean by the second objective, with the front. None where there is only one objective, or nothing to show."""
    front = sweep.pareto
    if not front:
        return None
    trials = [t for t in sweep.compared if sweep.cost(t) is not None]
    unit = "latency of the student on one CPU thread, ms" if sweep.against == "latency" else "parameters of the student"
    steps = go.Scatter(
        x=[sweep.cost(t) for t in front],
        y=[t.hmean for t in front],
        mode="lines",
        name="Pareto front",
        line={"shape": "hv", "color": ORANGE, "width": 2},
        hoverinfo="skip",
    )
    marks = [
        go.Scatter(
            x=[sweep.cost(t) for t in found],
            y=[t.hmean for t in found],
            mode="markers",
            name=look.name,
            marker={"color": look.colour, "symbol": look.symbol, "size": look.size + 2, "opacity": look.opacity},
            **hover([lines(told(t, sweep), f"{sweep.cost(t):,.6g} {sweep.against}") for t in found]),
        )
        for look, found in by_look(sweep, trials)
    ]
    drawn = figure([steps, *marks], unit, "hmean on val")
    return chart("pareto", f"Hmean by the {unit}, with the trials that none beats in both.", drawn, 420)


def cost(sweep: Sweep) -> Chart | None:
    """Device time by trial, with what ending it before its last epoch left unspent. None where no time is known."""
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
                name="left unspent",
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
        error_x={
            "type": "data",
            "array": [arm.spread or 0.0 for arm in arms],
            "thickness": 2,
            "width": 6,
            "color": GREY,
        },
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
                "color": GREY,
            },
            **hover(
                [
                    f"{label}<br>{d.value:+.4f} ({d.low:+.4f} to {d.high:+.4f})"
                    for label, (_, d) in zip(labels, pairs, strict=True)
                ]
            ),
        )
        apart = figure([intervals], "difference in hmean", "", legend=False)
        rows_of(apart, labels)
        apart.add_shape(type="line", x0=0, x1=0, y0=0, y1=1, yref="y domain", line={"width": 1.5}, layer="below")
        says = "Differences from the controls, with 95% intervals over seeds and pictures."
        charts.append(chart("differences", says, apart, 90 + 52 * len(pairs)))
    return tuple(charts)
