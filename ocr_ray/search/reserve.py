"""One trial's processes, ready before the trial: asked for when another trains, so that the next one finds them."""

import contextlib
from collections.abc import Callable


class Reserve:
    """Keeps the processes of one trial ready while trials are left to start.

    They start when all trials that have started train, and not before: they would take the cores from a start.

    Args: trials are left to start; fill_up asks for what is lacking, and may fail: a trial then starts slower.
    """

    def __init__(self, trials: int, fill_up: Callable[[], None]) -> None:
        self._left, self._fill_up = trials, fill_up
        self._starting: set[str] = set()

    def trial_starts(self, trial_id: str) -> None:
        """It takes what is ready."""
        self._left -= 1
        self._starting.add(trial_id)

    def trial_trains(self, trial_id: str) -> None:
        """Called at each of its signs of life; the first one counts."""
        if trial_id not in self._starting:
            return
        self._starting.discard(trial_id)
        if self._left > 0 and not self._starting:
            with contextlib.suppress(Exception):
                self._fill_up()

    def trial_ends(self, trial_id: str) -> None:
        """Perhaps before it has trained."""
        self._starting.discard(trial_id)
