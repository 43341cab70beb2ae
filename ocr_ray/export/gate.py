"""Whether an exported file finds what its weights find: by the programs that are going to read it, on labelled pictures.

The net in the file has to give what PyTorch gives. A program with the file's settings then has to come to the same
hmean, but for OpenCV, which takes the same map apart by rules of its own; what that costs, and what a program's own
settings cost, is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from ocr_ray.data.images import read_image
from ocr_ray.data.labels import Sample
from ocr_ray.metrics import MatchCounts, Score, match
from ocr_ray.readers import Reader

MOST_OFF = 0.001
"""Of hmean, that a reader with the same settings may differ from PyTorch."""


@dataclass(frozen=True)
class Reading:
    """What one reader found."""

    reader: Reader
    score: Score
    difference: float
    """Of its hmean to PyTorch's."""

    @property
    def fails(self) -> bool:
        """Whether it should have found the same, and did not."""
        return self.reader.same and abs(self.difference) > MOST_OFF


def read_all(readers: Sequence[Reader], samples: Sequence[Sample], torch_hmean: float) -> list[Reading]:
    """Each reader over all pictures. Raises: DataError for one that cannot be read."""
    counts = [MatchCounts()] * len(readers)
    for sample in samples:
        image = read_image(sample.image)
        for i, reader in enumerate(readers):
            counts[i] += match(sample.polygons, sample.ignore, reader.read(image))
    scores = [Score.from_counts(found) for found in counts]
    return [Reading(r, s, s.hmean - torch_hmean) for r, s in zip(readers, scores, strict=True)]


def gate_table(torch: Score, readings: Sequence[Reading], file: Path) -> Table:
    """A row for PyTorch and for each reader, for the terminal."""
    table = Table(
        title=f"{file.name} by its readers", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for head in ("reader", "settings", "hmean", "precision", "recall", "to PyTorch", ""):
        table.add_column(head, justify="left" if head in ("reader", "settings", "") else "right")
    table.add_row("PyTorch", "the file's", *_figures(torch), "", "")
    for reading in readings:
        verdict = "differs" if reading.fails else "" if reading.reader.same else "not held to it"
        row = (reading.reader.name, reading.reader.settings, *_figures(reading.score))
        table.add_row(*row, f"{reading.difference:+.4f}", verdict)
    return table


def _figures(score: Score) -> tuple[str, str, str]:
    return f"{score.hmean:.4f}", f"{score.precision:.4f}", f"{score.recall:.4f}"
