"""How charts look: one layout, colours that hold on light and dark ground and with any colour vision, hover, JSON.

Plotly draws them, since trials want to be pointed at (which values, why it ended), since its SVG takes the page's own
colours through CSS, so that one figure serves light, dark and print, and since it lays a chart out anew on a narrow
screen, where an SVG made beforehand would only shrink its letters. Its script is inlined whole, from the installed
package: 4.8 MB a page, about two students' weights. The partial bundles are a quarter of that, but PyPI does not have
them: a copy would lie in this repository as a blob of a megabyte, and could fall behind the package that writes the
figures. WebGL charts (plotly's own parallel coordinates) are not used: they neither print nor take CSS colours.
"""

import html
from collections.abc import Sequence
from typing import Any, Literal

import plotly.graph_objects as go

from ocr_ray.report.blocks import Chart

# After Okabe and Ito, moved to where each has a contrast of 3 and more to both white and the page's dark ground.
BLUE, ORANGE, GREEN, GREY = "#3b8fc4", "#d55e00", "#009e73", "#8a8f98"
PURPLE, GOLD = "#b565a7", "#a67c00"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, GOLD, GREY)
DASHES = ("solid", "dash", "dot", "dashdot")
LEGEND_PX = 34

Axis = Literal["linear", "log"]


def figure(
    traces: Sequence[Any],
    x_title: str,
    y_title: str,
    x_type: Axis = "linear",
    legend: bool = True,
    top: int = 12,
) -> go.Figure:
    """A chart of `traces` with named axes. Texts in traces must be `plain` already."""
    axis = {"automargin": True, "zeroline": False, "showline": True, "ticks": "outside", "ticklen": 4}
    return go.Figure(
        list(traces),
        {
            "template": "none",
            "font": {"family": "inherit", "size": 13},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 56, "r": 14, "t": top + (LEGEND_PX if legend else 0), "b": 48},
            "xaxis": {**axis, "title": {"text": plain(x_title), "standoff": 8}, "type": x_type},
            "yaxis": {**axis, "title": {"text": plain(y_title), "standoff": 8}},
            "showlegend": legend,
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1,
                "yanchor": "bottom",
                "traceorder": "normal",
            },
            "hovermode": "closest",
            "dragmode": False,  # a finger on a chart scrolls the page
            "hoverlabel": {
                "bgcolor": "#20252e",
                "bordercolor": "#20252e",
                "font": {"color": "#ffffff", "size": 13},
                "align": "left",
            },
        },
    )


def chart(name: str, says: str, drawn: go.Figure, height: int = 360, least_width: int = 0, title: str = "") -> Chart:
    """The figure as a block of a page."""
    return Chart(name, says, drawn.to_json(), height, least_width, title)


def plain(text: object) -> str:
    """Text for plotly, which takes some HTML in it: untrusted names stay what they are."""
    return html.escape(str(text), quote=False)


def lines(*texts: str) -> str:
    """What hovering shows: a line each, already `plain`; empty ones are left out."""
    return "<br>".join(text for text in texts if text)


def hover(texts: Sequence[str]) -> dict[str, Any]:
    """A trace's keys for these texts, one for each point."""
    return {"text": list(texts), "hovertemplate": "%{text}<extra></extra>"}


def rows_of(drawn: go.Figure, names: Sequence[str]) -> None:
    """Names the places 0, 1, ... of the y axis."""
    drawn.update_yaxes(tickvals=list(range(len(names))), ticktext=list(names), showgrid=False, ticks="")


def level(drawn: go.Figure, at: float, text: str) -> None:
    """A horizontal line through the whole chart, with its name on it."""
    drawn.add_shape(
        type="line", x0=0, x1=1, xref="x domain", y0=at, y1=at, line={"width": 1.2, "dash": "dash"}, layer="below"
    )
    drawn.add_annotation(
        text=plain(text), x=0, xref="x domain", xanchor="left", xshift=4, y=at, yanchor="bottom", showarrow=False
    )


def moment(drawn: go.Figure, at: float, text: str) -> None:
    """A vertical line through the whole chart, with its name above it."""
    drawn.add_shape(
        type="line", y0=0, y1=1, yref="y domain", x0=at, x1=at, line={"width": 1.2, "dash": "dot"}, layer="below"
    )
    drawn.add_annotation(
        text=plain(text), x=at, xanchor="left", xshift=3, y=1, yref="y domain", yanchor="top", showarrow=False
    )
