"""What rank 0 of a run has reported, on disk: for the time when no driver takes it, since it was killed or stopped
while the workers still finished an epoch."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPORTS_FILE = "reports.jsonl"
CONFIRM_FOLDER = "confirm"
"""In a sweep's folder: its confirmation's runs, a folder each."""
CONFIRMATION_FILE = "confirmation.json"
"""In a sweep's folder: what its confirmation found, as `Confirmation.plain` gives it."""
USED_CONFIG = "used_config"
"""Key of a trial's report: what its worker built with, as JSON. Tune itself writes a trial's values under `config`."""


def append_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Adds the report of one epoch to those of the run in `folder`."""
    with (folder / REPORTS_FILE).open("a") as reports:
        reports.write(json.dumps(report) + "\n")


def read_reports(folder: Path) -> list[dict[str, Any]]:
    """The reports of a run, one for each epoch; the later one of an epoch that was done again.

    A run that went back to an earlier epoch has left what came after that; it counts no more. A line that was cut by a
    kill is left out.
    """
    reports: dict[int, dict[str, Any]] = {}
    path = folder / REPORTS_FILE
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            report = json.loads(line)
            reports = {epoch: before for epoch, before in reports.items() if epoch < report["epoch"]}
            reports[int(report["epoch"])] = report
    return [reports[epoch] for epoch in sorted(reports)]
