"""One trial's processes, ready before the trial: asked for when another trains, so that the next one finds them."""

import contextlib
from collections.abc import Callable


class Reserve:
    """Keeps the processes of one trial ready while trials are left to start.

    They start at a trial's first sign of training and not before: until then they would take the cores from it.

    Args: trials are left to start; fill_up asks for what is lacking, and may fail: a trial then starts slower.
    """

    def __init__(self, trials: int, fill_up: Callable[[], None]) -> None:
        self._left, self._fill_up = trials, fill_up
        self._training: set[str] = set()

    def trial_starts(self) -> None:
        """It takes what is ready."""
        self._left -= 1

    def trial_trains(self, trial_id: str) -> None:
        """Called at each of its signs of life; the first one counts."""
        if trial_id in self._training:
            return
        self._training.add(trial_id)
        if self._left > 0:
            with contextlib.suppress(Exception):
                self._fill_up()
