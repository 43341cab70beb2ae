"""Makes a version the champion, past the gate, or says why not; both are evaluated from what the registry holds."""

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ocr_ray.data.labels import data_digest, read_labels
from ocr_ray.errors import RunError
from ocr_ray.registry.measure import measure
from ocr_ray.registry.reader import OnnxReader
from ocr_ray.registry.store import CHAMPION, Registry, Version
from ocr_ray.registry.verdict import Limits, Verdict, judge


@dataclass(frozen=True)
class Promotion:
    """What came of it."""

    version: Version
    champion: Version | None
    """The one before."""
    verdict: Verdict
    images: int
    unreadable: tuple[str, ...]
    dry_run: bool

    def table(self) -> Table:
        """The conditions, for the terminal."""
        before = None if self.champion is None else f"{CHAMPION} {self.champion.number}"
        title = f"{self.version} on {self.images} pictures of val"
        return self.verdict.table(title, f"version {self.version.number}", before)

    def __str__(self) -> str:
        left_out = ""
        if self.unreadable:
            left_out = f"; {len(self.unreadable)} images left out, the first: {self.unreadable[0]}"
        if not self.verdict.promoted:
            return f"refused: {self.verdict.why}{left_out}"
        done = "would be promoted (--dry-run)" if self.dry_run else f"promoted: models:/{self.version.name}@{CHAMPION}"
        return f"{done}: {self.verdict.why}{left_out}"


def promote(
    uri: str,
    name: str,
    labels: Path,
    number: int | None = None,
    root: Path | None = None,
    limits: Limits | None = None,
    dry_run: bool = False,
) -> Promotion:
    """Evaluates a version, the latest one unless `number` is given, beside the champion, and judges it.

    The verdict and its numbers become tags of the version, also when it is refused, before the alias moves. With
    `dry_run` nothing is written.

    Args: uri of the store; labels of the pictures that both are evaluated on, one after another on one thread.
    Raises: RunError when the store does not answer or lacks the version, or when it is the champion already; DataError
        for labels that cannot be read; WeightsError for a version that cannot be evaluated.
    """
    samples = read_labels(labels, root)
    registry = Registry(uri)
    version, champion = registry.version(name, number), registry.champion(name)
    if champion is not None and champion.number == version.number:
        raise RunError(f"{version}: is the {CHAMPION} already, expected another version")
    with tempfile.TemporaryDirectory() as folder, _progress_bar() as bar:
        both = [version] if champion is None else [version, champion]
        files = [registry.fetch(v, Path(folder) / str(v.number)) for v in both]
        task = bar.add_task("evaluating", total=len(samples))
        measured, unreadable = measure(
            [OnnxReader(file, threads=1) for file in files], samples, lambda: bar.advance(task)
        )
    verdict = judge(measured[0], measured[1] if champion is not None else None, limits or Limits())
    images = len(measured[0].counts)
    if not dry_run:
        about = {
            "promotion.at": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "promotion.over": "no champion yet" if champion is None else str(champion.number),
            "promotion.val_digest": data_digest(samples),
            "promotion.images": str(images),
        }
        registry.tag(version, {**about, **verdict.tags()}, prefix="promotion")
        if verdict.promoted:
            registry.crown(version)
    return Promotion(version, champion, verdict, images, unreadable, dry_run)


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
