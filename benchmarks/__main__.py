"""`python -m benchmarks [--quick] [--json FILE]`: one table, and the same rows as JSON."""

import argparse
import json
import tempfile
import time
import traceback
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import (
    boxes,
    loaders,
    pipeline,
    ray_overhead,
    shared_sweep,
    shared_teacher,
    student_step,
    trial_start,
)
from benchmarks.machine import command, describe, one_thread
from benchmarks.pictures import find_pictures
from benchmarks.reference import find_reference
from benchmarks.rows import Bench, Row, Subject

SUBJECTS: tuple[Subject, ...] = (
    pipeline.SUBJECT,
    boxes.SUBJECT,
    loaders.SUBJECT,
    student_step.SUBJECT,
    shared_teacher.SUBJECT,
    shared_sweep.SUBJECT,
    trial_start.SUBJECT,
    ray_overhead.SUBJECT,
)
"""In the table's order. A new one is a file with a `SUBJECT`, and its name here."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only what is measured in seconds; ends within 5 minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, a list of objects")
    parser.add_argument("--only", metavar="SUBJECT", choices=[s.name for s in SUBJECTS], help="one subject alone")
    arguments = parser.parse_args()
    if arguments.json is not None and not arguments.json.resolve().parent.is_dir():
        parser.error(f"--json {arguments.json}: no such folder: {arguments.json.resolve().parent}")
    console = Console()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ocr_ray_bench_") as folder:
        rows = measure(arguments.quick, arguments.only, Path(folder), Console(stderr=True))
    console.print(table(rows, f"{command()}: {time.monotonic() - started:.0f} s on {describe()}"))
    console.print(notes(rows))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([plain(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    if any(row.value is None for row in rows):
        raise SystemExit(1)  # a subject has failed


def measure(quick: bool, only: str | None, folder: Path, log: Console) -> list[Row]:
    """The rows of all subjects, or of one. A subject that fails gives a row without a value that says so."""
    one_thread()
    pictures = find_pictures(40 if quick else 120, folder)
    reference = find_reference()
    log.print(f"{pictures.what}; {reference.what if reference else 'the reference is not installed (extra bench)'}")
    bench = Bench(quick, pictures, reference, folder, log.print)
    rows: list[Row] = []
    for subject in SUBJECTS:
        if only not in (None, subject.name) or (quick and not subject.quick):
            continue
        log.print(f"{subject.name} ...")
        try:
            rows += subject.rows(bench)
        except Exception as e:  # the other rows are worth having
            log.print(traceback.format_exc())
            rows.append(Row(subject.name, None, None, "", f"failed: {type(e).__name__}: {e}"))
    return rows


def plain(row: Row) -> dict[str, object]:
    """A row as JSON has it: the keys are pinned, so reference and machine are told in `how`."""
    how = row.how if row.reference is None else f"{row.how}; reference: {row.reference:.3g}"
    return {
        "name": row.name,
        "value": row.value,
        "target": row.target,
        "met": row.met,
        "unit": row.unit,
        "how": f"{how}; {describe()}",
    }


def table(rows: list[Row], caption: str) -> Table:
    """The rows for people; what was timed against what is in `notes`."""
    drawn = Table(caption=caption, title="ocr_ray benchmarks", caption_justify="left")
    for heading in ("", "what", "value", "target", "met", "reference", "unit"):
        drawn.add_column(heading, justify="right" if heading in ("", "value", "target", "reference") else "left")
    for number, row in enumerate(rows, start=1):
        met = {True: "[green]yes", False: "[red]no", None: "-"}[row.met]
        figures = (_figure(row.value), _figure(row.target), met, _figure(row.reference))
        drawn.add_row(str(number), row.name, *figures, row.unit)
    return drawn


def notes(rows: list[Row]) -> Table:
    """How each row was measured, under the table."""
    drawn = Table(box=None, show_header=False, pad_edge=False)
    drawn.add_column(justify="right")
    drawn.add_column(overflow="fold")
    for number, row in enumerate(rows, start=1):
        drawn.add_row(str(number), escape(row.how))
    return drawn


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    main()
