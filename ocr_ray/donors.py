"""What one trial leaves for others to go on from: a checkpoint and the best weights, kept until they are taken up.

Ray Train drops a run's older checkpoints as it goes on. So the files are linked aside (copied where the file system has
no links) in the sweep's folder, where only the sweep drops them.
"""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ocr_ray.errors import RunError
from ocr_ray.files import whole_folder, write_text

DONORS_FOLDER = "donors"
CHECKPOINT, BEST = "checkpoint", "best"
POINTER_FILE = "donor.json"
INHERITED_FILE = "inherited.txt"
"""In a checkpoint: the name of the donor from which its run went on last; absent where there was none."""
INHERITED = "inherited"
"""Key of a report: the same."""


@dataclass(frozen=True)
class Donor:
    """A checkpoint that others may go on from."""

    trial_id: str
    epoch: int
    path: str
    """Folder, absolute. Its name is the donor's own: a trial that went back to an epoch leaves another one of it."""

    @property
    def name(self) -> str:
        """As reports of those that went on from it have it."""
        return Path(self.path).name

    @classmethod
    def at(cls, path: Path) -> "Donor":
        """The one in that folder, which may be gone: its name tells all."""
        trial_id, epoch, _ = path.name.rsplit("-", 2)
        return cls(trial_id, int(epoch), str(path))


def pin(sweep: Path, trial_id: str, epoch: int, checkpoint: Path, best: Path) -> Donor:
    """Keeps a checkpoint of a trial, and the folder of its best weights, aside in the folder of its sweep."""
    path = sweep / DONORS_FOLDER / f"{trial_id}-{epoch}-{uuid.uuid4().hex[:8]}"
    with whole_folder(path) as aside:
        _link_all(checkpoint, aside / CHECKPOINT)
        if best.exists():
            _link_all(best, aside / BEST)
    return Donor.at(path)


def point(folder: Path, donor: Donor) -> None:
    """Writes into `folder` where the donor lies: that is all that Tune keeps of it."""
    write_text(folder / POINTER_FILE, json.dumps(asdict(donor)))


def pointed(folder: Path) -> Donor | None:
    """The donor that `folder` points to."""
    try:
        return Donor(**json.loads((folder / POINTER_FILE).read_text()))
    except FileNotFoundError:
        return None


def checkpoint_of(donor: Path) -> Path:
    """The donor's checkpoint. Raises: RunError when it is gone."""
    if not (donor / CHECKPOINT).is_dir():
        raise RunError(f"{donor}: the checkpoint to go on from is not there any more")
    return donor / CHECKPOINT


def inherit_best(donor: Path, run: Path) -> None:
    """Puts the donor's best weights in the place of those of the run in the folder `run`."""
    if (donor / BEST).exists():
        with whole_folder(run / BEST) as aside:
            _link_all(donor / BEST, aside)


def mark_heir(checkpoint: Path, donor: str) -> None:
    """Notes in a checkpoint the name of the donor from which its run went on last, if there was one."""
    if donor:
        (checkpoint / INHERITED_FILE).write_text(donor)


def heir_of(checkpoint: Path) -> str:
    """What `mark_heir` noted there; empty where it noted nothing."""
    note = checkpoint / INHERITED_FILE
    return note.read_text() if note.exists() else ""


def drop(sweep: Path, newest: Mapping[str, int], needed: Collection[str]) -> None:
    """Drops what nobody needs any more.

    Args: newest is, by trial, the epoch of the newest donor that the driver knows of: that one stays, and so do those
        that it is still to hear of; needed are paths of older ones that somebody is to go on from.
    """
    for path in (sweep / DONORS_FOLDER).glob("[!.]*"):
        donor = Donor.at(path)
        if donor.epoch < newest.get(donor.trial_id, 0) and donor.path not in needed:
            shutil.rmtree(path)


def drop_all(sweep: Path) -> None:
    """At the end of a sweep, when nobody goes on from anything."""
    shutil.rmtree(sweep / DONORS_FOLDER, ignore_errors=True)


def _link_all(source: Path, target: Path) -> None:
    # What is hidden is being written, and may be gone in a moment.
    ignore = shutil.ignore_patterns(".*")
    shutil.copytree(source, target, copy_function=_link, ignore=ignore, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copy2(source, target)
