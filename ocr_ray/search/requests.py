"""What people ask of a sweep from another terminal: a file in its folder for each wish, which its driver takes up."""

import time
from pathlib import Path

from ocr_ray.files import write_text

REQUESTS_FOLDER = "requests"


def ask_to_stop(folder: Path, trial: int | None = None) -> None:
    """Asks the driver of the sweep in `folder` to end the trial of that number, or the whole sweep."""
    write_text(_file(folder, trial), time.strftime("%Y-%m-%d %H:%M:%S"))


def asked_to_stop(folder: Path, trial: int | None = None) -> str | None:
    """When that was asked for, in words; None where it was not."""
    try:
        return _file(folder, trial).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None


def done(folder: Path, trial: int | None = None) -> None:
    """Takes the wish away: it was fulfilled, or there is nothing left to stop."""
    _file(folder, trial).unlink(missing_ok=True)


def _file(folder: Path, trial: int | None) -> Path:
    return folder / REQUESTS_FOLDER / ("stop" if trial is None else f"stop-trial-{trial}")
