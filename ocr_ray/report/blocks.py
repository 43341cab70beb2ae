"""What a page is made of. Texts are plain: the template escapes them."""

from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["good", "neutral", "warning"]


@dataclass(frozen=True)
class Chart:
    """A figure of plotly's, as its JSON."""

    name: str
    """Unique in its page; the id of its element."""
    says: str
    """What it shows, in one sentence, for who cannot see it."""
    figure: str
    height: int
    """Pixels."""
    least_width: int = 0
    """Pixels; where the screen is narrower the chart is scrolled sideways."""
    title: str = ""


@dataclass(frozen=True)
class Charts:
    """Small ones, beside one another where there is room."""

    charts: tuple[Chart, ...]


@dataclass(frozen=True)
class Cell:
    """Of a table: the text, and what it is sorted by where that is a number."""

    text: str
    number: float | None = None


@dataclass(frozen=True)
class Row:
    """Of a table."""

    cells: tuple[Cell, ...]
    mark: Literal["", "winner", "control"] = ""


@dataclass(frozen=True)
class Table:
    """Sorted by a click on a column's head, where `sortable`."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    sortable: bool = True


@dataclass(frozen=True)
class Code:
    """Lines to copy, with what they do."""

    says: str
    text: str


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    text: str
    tone: Tone = "neutral"


@dataclass(frozen=True)
class Picture:
    """One drawn picture."""

    jpeg: str
    """Base64."""
    width: int
    height: int
    caption: str


@dataclass(frozen=True)
class Pictures:
    """The same photograph as several nets see it, side by side."""

    title: str
    pictures: tuple[Picture, ...]


Block = Chart | Charts | Table | Code | Prose | Pictures


@dataclass(frozen=True)
class Section:
    """A part of the page with its headline."""

    name: str
    title: str
    lead: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Tile:
    """One figure at the head of the page."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Headline:
    """What a reader takes home who reads nothing else."""

    text: str
    details: tuple[str, ...] = ()
    tone: Tone = "neutral"


@dataclass(frozen=True)
class Page:
    """All of it."""

    title: str
    kind: str
    """Of what it is a page, e.g. `sweep`."""
    about: str
    """One line under the title: recipe, data, dates."""
    headline: Headline
    tiles: tuple[Tile, ...] = ()
    sections: tuple[Section, ...] = field(default_factory=tuple)
