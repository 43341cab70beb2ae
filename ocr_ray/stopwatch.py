"""What a run or a sweep has cost so far, over all attempts: seconds, and seconds times workers."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ocr_ray.files import write_text

SPENT_FILE = "spent.json"
HOUR_S = 3600.0
DEVICE_HOURS = "device_hours"
"""Metric: workers times hours since the run's start, their own start and all attempts included. A worker counts whole,
also where it has a part of a GPU."""
DEVICE_HOURS_OF_EPOCH = "device_hours.epoch"
"""Metric: the same of one epoch's training and evaluation alone."""


class Stopwatch:
    """Runs from its making on, and goes on from what an earlier attempt has written down."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = folder / SPENT_FILE, clock
        self._before = float(json.loads(self._path.read_text())["seconds"]) if self._path.exists() else 0.0
        self._since = clock()
        self._saved = self._before

    @property
    def seconds(self) -> float:
        """Over all attempts."""
        return self._before + self._clock() - self._since

    def save(self, least_s: float = 0.0) -> None:
        """Writes it down, for an attempt to come, unless less than `least_s` has passed since it last did."""
        if self.seconds - self._saved >= least_s:
            self._saved = self.seconds
            write_text(self._path, json.dumps({"seconds": round(self._saved, 1)}))


def device_hours(report: Mapping[str, Any], workers: int, seconds: float | None = None) -> dict[str, float]:
    """Metrics of one epoch's report; without `seconds`, those since the run's start, the epoch's alone."""
    found = {}
    if "time.epoch_s" in report:
        found[DEVICE_HOURS_OF_EPOCH] = float(report["time.epoch_s"]) * workers / HOUR_S
    if seconds is not None:
        found[DEVICE_HOURS] = seconds * workers / HOUR_S
    return found
