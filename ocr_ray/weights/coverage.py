"""What of a net was found in a file, name by name, as a table and as one line."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

SHOWN = 4  # groups of names in one line


@dataclass(frozen=True)
class Misshapen:
    """An array that is there, but not as the net needs it."""

    name: str
    found: tuple[int, ...]
    expected: tuple[int, ...]


@dataclass(frozen=True)
class Coverage:
    """How the arrays of a file met the parameters and running statistics of a net. Names are ours."""

    what: str
    """Which arrays into which net, e.g. `best.pdparams (Teacher) into Teacher`."""
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    """In the net, not in the file."""
    unexpected: tuple[str, ...]
    """In the file, not in the net."""
    misshapen: tuple[Misshapen, ...]
    may_be_new: tuple[str, ...] = ()
    """Prefixes that the caller named: under these nothing need match."""
    dropped: tuple[str, ...] = ()
    """In the file, and left out on purpose: a classifier's last layers, or squeeze-excite where the net has none."""

    @property
    def new(self) -> tuple[str, ...]:
        """What the net keeps as it was made, allowed by the caller."""
        return tuple(n for n in (*self.missing, *(m.name for m in self.misshapen)) if is_under(n, self.may_be_new))

    @property
    def faults(self) -> "Coverage":
        """The same without what the caller allowed."""
        return Coverage(
            self.what,
            self.matched,
            tuple(n for n in self.missing if not is_under(n, self.may_be_new)),
            tuple(n for n in self.unexpected if not is_under(n, self.may_be_new)),
            tuple(m for m in self.misshapen if not is_under(m.name, self.may_be_new)),
        )

    @property
    def whole(self) -> bool:
        """Whether every name of the net was found in its shape and nothing was left over, but for what may be new."""
        faults = self.faults
        return not (faults.missing or faults.unexpected or faults.misshapen)

    def one_line(self) -> str:
        """E.g. `288 of 301 arrays matched; missing head.thresh.* (13)`."""
        total = len(self.matched) + len(self.missing) + len(self.misshapen)
        parts = [f"{len(self.matched)} of {total} arrays matched"]
        mine = [*self.matched, *self.missing, *(m.name for m in self.misshapen)]
        theirs = [*self.matched, *self.unexpected, *(m.name for m in self.misshapen)]
        if self.missing:
            parts.append(f"missing {grouped(self.missing, mine)}")
        if self.unexpected:
            parts.append(f"unexpected {grouped(self.unexpected, theirs)}")
        if self.misshapen:
            shapes = [f"{m.name} {list(m.found)} for {list(m.expected)}" for m in self.misshapen]
            parts.append(f"misshapen {shortened(shapes)}")
        if self.dropped:
            parts.append(f"left out {grouped(self.dropped, [*theirs, *self.dropped])}")
        return "; ".join(parts)


def compare(
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    what: str,
    may_be_new: Sequence[str] = (),
    dropped: Sequence[str] = (),
) -> Coverage:
    """The coverage of the shapes that a net expects by those that were found; `dropped` are names in `found`."""
    common = [name for name in expected if name in found]
    return Coverage(
        what,
        matched=tuple(name for name in common if found[name] == expected[name]),
        missing=tuple(name for name in expected if name not in found),
        unexpected=tuple(name for name in found if name not in expected and name not in dropped),
        misshapen=tuple(
            Misshapen(name, found[name], expected[name]) for name in common if found[name] != expected[name]
        ),
        may_be_new=tuple(may_be_new),
        dropped=tuple(dropped),
    )


def coverage_table(coverages: Sequence[Coverage]) -> Table:
    """A row for each net: how many names matched, were missing, unexpected, misshapen, and which."""
    table = Table(title="Weights loaded")
    table.add_column("file into net", overflow="fold")
    for column in ("matched", "missing", "unexpected", "misshapen"):
        table.add_column(column, justify="right")
    table.add_column("note", overflow="fold")
    for c in coverages:
        numbers = (len(c.matched), len(c.missing), len(c.unexpected), len(c.misshapen))
        notes = c.one_line().partition("; ")[2]
        if c.new:
            notes += " (may be new)"
        table.add_row(c.what, *map(str, numbers), notes, style=None if c.whole else "red")
    return table


def is_under(name: str, prefixes: Iterable[str]) -> bool:
    """Whether `name` is one of the dotted `prefixes` or lies below it."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def grouped(names: Collection[str], among: Collection[str]) -> str:
    """`names` in few words: `head.thresh.* (13)` where all of `among` that lie under head.thresh are meant."""
    wanted = Counter(prefix for name in names for prefix in _prefixes(name))
    existing = Counter(prefix for name in among for prefix in _prefixes(name))
    groups = []
    for name in names:
        # The shortest prefix under which everything is meant.
        group = next((p for p in _prefixes(name) if wanted[p] == existing[p]), name)
        if group not in groups:
            groups.append(group)
    return shortened([f"{g}.* ({wanted[g]})" if wanted[g] > 1 or g not in names else g for g in groups])


def shortened(texts: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    rest = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
