"""Who runs what lies in a folder: a note there, so that others see whether it still does, and nobody does it twice."""

import contextlib
import dataclasses
import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psutil

from ocr_ray.errors import RunError, UserError, in_one_line
from ocr_ray.files import write_text

DRIVER_FILE = "driver.json"
BEAT_S = 5.0
"""Between two signs of life of a driver: it then touches its note."""
SILENT_S = 4 * BEAT_S
"""A driver on another machine that has given no sign for so long is taken for dead."""

State = Literal["runs", "finished", "stopped", "failed", "killed"]


@dataclass(frozen=True)
class DriverNote:
    """What a driver says of itself in the folder that it works on."""

    host: str
    pid: int
    created: float
    """When its process began, in seconds since 1970: another may have the same number later."""
    began: float
    kind: Literal["sweep", "run"]
    resume: str
    """What to type to go on with its work."""
    ended: Literal["", "finished", "stopped", "failed"] = ""
    """How it left; empty while it works, and for ever where it was killed."""
    reason: str = ""
    """Why it failed, in one line."""


def read_note(folder: Path) -> DriverNote | None:
    """The note of the last driver in `folder`; None where there never was one."""
    try:
        return DriverNote(**json.loads((folder / DRIVER_FILE).read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None


def state_of(folder: Path, note: DriverNote) -> State:
    """What has become of the driver that left `note` in `folder`."""
    if note.ended:
        return note.ended
    return "runs" if _lives(folder, note) else "killed"


def must_be_alone(folder: Path) -> None:
    """Raises: RunError where another process works on `folder`.

    Of one on another machine it waits for a sign of life, since that is all that is known of it.
    """
    note = read_note(folder)
    if note is None or state_of(folder, note) != "runs" or (note.host, note.pid) == (socket.gethostname(), os.getpid()):
        return
    if note.host != socket.gethostname():
        last = _last_sign(folder)
        for _ in range(round(SILENT_S)):
            time.sleep(1.0)
            if _last_sign(folder) != last:
                break
        else:
            return
    raise RunError(f"{folder}: is at work already: process {note.pid} on {note.host}")


class Driver:
    """This process at work on a folder, from `take` to the end of the `with` block, which notes how it went."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._note: DriverNote | None = None
        self._over = threading.Event()

    def __enter__(self) -> Self:
        return self

    def take(self, folder: Path, kind: Literal["sweep", "run"], resume: str) -> None:
        """From now on this process works on `folder`; `resume` is what to type to go on with it later."""
        own = psutil.Process()
        self._folder = folder
        self._note = DriverNote(socket.gethostname(), own.pid, own.create_time(), time.time(), kind, resume)
        self._write()
        threading.Thread(target=self._beat, name="driver", daemon=True).start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._note is None:
            return
        if error is None:
            self._note = dataclasses.replace(self._note, ended="finished")
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            self._note = dataclasses.replace(self._note, ended="stopped")
        else:
            self._note = dataclasses.replace(self._note, ended="failed", reason=in_one_line(error))
        with contextlib.suppress(OSError, UserError):  # a full disk has its own error to show
            self._write()

    def _write(self) -> None:
        assert self._folder is not None
        assert self._note is not None
        write_text(self._folder / DRIVER_FILE, json.dumps(dataclasses.asdict(self._note), indent=1))

    def _beat(self) -> None:
        assert self._folder is not None
        while not self._over.wait(BEAT_S):
            with contextlib.suppress(OSError):  # storage that is away for a moment
                os.utime(self._folder / DRIVER_FILE)


def _lives(folder: Path, note: DriverNote) -> bool:
    if note.host != socket.gethostname():
        return time.time() - _last_sign(folder) < SILENT_S
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(note.pid)
        return abs(process.create_time() - note.created) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    return False


def _last_sign(folder: Path) -> float:
    return (folder / DRIVER_FILE).stat().st_mtime
