"""How people stop what a sweep does, its trials or its confirmation: signals, and a request in its folder.

Ctrl-C, or the request, lets each run that trains come to its next report, whose checkpoint a resume takes up. A second
Ctrl-C, or SIGTERM (`ray job stop`, 3 s before the kill), is a KeyboardInterrupt at once: what there is to save has been
saved at the last report.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from ocr_ray.search import requests
from ocr_ray.tracking import Tracker

LOOK_S = 1.0
"""Between two looks for requests."""
HEEDED = (signal.SIGINT, signal.SIGTERM)


class SweepStopped(Exception):
    """Ends a loop over runs, which then gives them back."""


class Halt:
    """The wish to stop, for a loop over runs that tells it of their signs of life, and asks it again and again.

    Args: folder is the sweep's, stage how people call what is to stop; names has words for runs by their ids, or none;
        say takes lines for people; at_once is called in a signal's handler, just before everything ends.
    """

    def __init__(
        self,
        folder: Path,
        stage: str,
        names: Callable[[set[str]], str],
        say: Callable[[str], None],
        at_once: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder, self._stage, self._names, self._say, self._at_once = folder, stage, names, say, at_once
        self._training: set[str] = set()
        self._awaited: set[str] | None = None
        self._looked = 0.0
        self._asked = threading.Event()

    @property
    def stopping(self) -> bool:
        """Whether all is to stop after the reports under way."""
        return self._asked.is_set()

    def heed_signals(self) -> None:
        """From now on SIGINT and SIGTERM mean what this file says; only in the main thread, as Python has it."""
        if threading.current_thread() is threading.main_thread():
            for number in HEEDED:
                signal.signal(number, self._on_signal)

    def trains(self, run: str) -> None:
        """A sign of life: there is a report under way. Called from any thread."""
        self._training.add(run)

    def reported(self, run: str) -> None:
        """The report that was under way has come."""
        if self._awaited is not None:
            self._awaited.discard(run)

    def ended(self, run: str) -> None:
        """There will be no report more; of one that starts again, none is under way."""
        self._training.discard(run)
        self.reported(run)

    def look(self) -> None:
        """Between two events of the loop. Raises: SweepStopped when it is time."""
        now = time.monotonic()
        if not self.stopping and now - self._looked > LOOK_S:
            self._looked = now
            if requests.asked_to_stop(self._folder) is not None:
                requests.done(self._folder)
                self._say(f"{self._stage}: asked to stop by `ocr-ray stop`")
                self._asked.set()
        if not self.stopping:
            return
        if self._awaited is None:
            self._awaited = set(self._training)
            words = self._names(self._awaited)
            if words:
                self._say(
                    f"{self._stage}: stops as soon as the epoch under way is finished in {words}; "
                    "Ctrl-C once more stops it now, and that epoch is lost"
                )
        if not self._awaited:
            raise SweepStopped

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Nothing is printed in here: the terminal's lock may be held by what the signal has interrupted.
        if number == signal.SIGINT and not self.stopping:
            self._asked.set()
            return
        self._at_once()
        raise KeyboardInterrupt


@contextlib.contextmanager
def signals_given_back() -> Iterator[None]:
    """After the block, SIGINT and SIGTERM mean what they meant before it."""
    before = {number: signal.getsignal(number) for number in HEEDED}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def interrupting(tracker: Tracker) -> Iterator[None]:
    """Turns the end of a loop that people asked for into an interrupt, as of Ctrl-C."""
    try:
        yield
    except SweepStopped:
        tracker.end_open_runs("KILLED")
        raise KeyboardInterrupt from None
