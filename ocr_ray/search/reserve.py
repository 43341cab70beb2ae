"""One trial's processes, ready before the trial: asked for when the last one trains, so that the next finds them."""

from ocr_ray import prestart


class Reserve:
    """Keeps the processes of one trial ready while trials are left to start.

    They start at a trial's first sign of training and not before: until then they would take the cores from it.
    """

    def __init__(self, trials: int, num_workers: int) -> None:
        self._left, self._num_workers = trials, num_workers
        self._full = False
        self._training: set[str] = set()

    def trial_starts(self) -> None:
        """It has taken what was there."""
        self._left -= 1
        self._full = False

    def trial_trains(self, trial_id: str) -> None:
        """Called at each of its signs of life; the first one counts."""
        if trial_id in self._training:
            return
        self._training.add(trial_id)
        if self._left > 0 and not self._full:
            self._full = True
            prestart.start_ahead(self._num_workers)
