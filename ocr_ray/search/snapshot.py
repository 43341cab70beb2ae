"""Tune's record of a sweep, kept aside whole: it writes over its own files, and a kill in the middle would leave
halves, from which Tune starts the whole sweep again."""

import shutil
from pathlib import Path

from ocr_ray.files import whole_folder

TUNES_FOLDER = "tune"
"""Of a sweep: where Tune writes. A folder of its own: Tune copies the files it finds beside its state out and, on a
resume, back again."""
KEPT_FOLDER = "tune-kept"
STATES = ("*.json", "*.pkl")
"""Trials, searcher and callbacks; each driver has files of its own, and Tune takes the newest."""


def keep(folder: Path) -> None:
    """Copies Tune's record of the sweep in `folder`, which must be whole now; the copy is whole, or not there."""
    with whole_folder(folder / KEPT_FOLDER) as aside:
        for file in _states(folder / TUNES_FOLDER):
            shutil.copy2(file, aside)


def put_back(folder: Path) -> bool:
    """Puts the last copy in the place of Tune's record, if there is one. Returns: whether there is a record now."""
    kept = _states(folder / KEPT_FOLDER)
    if kept:
        (folder / TUNES_FOLDER).mkdir(exist_ok=True)
        for file in _states(folder / TUNES_FOLDER):
            file.unlink()
        for file in kept:
            shutil.copy2(file, folder / TUNES_FOLDER)
    return any((folder / TUNES_FOLDER).glob("experiment_state-*.json"))


def _states(folder: Path) -> list[Path]:
    return sorted(file for pattern in STATES for file in folder.glob(pattern))
