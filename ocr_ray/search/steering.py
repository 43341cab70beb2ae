"""How people stop a sweep that runs, or one of its trials: `halt.Halt`, requests for one trial, and Tune's loop in
between."""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray.tune import ResumeConfig, Stopper
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.stopper import NoopStopper

from ocr_ray.search import requests
from ocr_ray.search.halt import Halt, SweepStopped
from ocr_ray.search.trials import TrialBook


class Steering(Stopper):
    """What is asked of a sweep, for Tune's loop, which asks as well whether a trial is to end at its report.

    Args: folder is the sweep's; say and at_once as in `Halt`.
    """

    def __init__(
        self, folder: Path, book: TrialBook, say: Callable[[str], None], at_once: Callable[[], None] = lambda: None
    ) -> None:
        self._folder, self._book = folder, book
        self._halt = Halt(folder, "sweep", self._names, say, at_once)
        self._ended_before: set[str] = set()
        requests.done(folder)  # one that a driver before this one has heard, or that came after its end

    @property
    def stopping(self) -> bool:
        """Whether the sweep is to stop after the reports under way."""
        return self._halt.stopping

    def heed_signals(self) -> None:
        """As `Halt.heed_signals`."""
        self._halt.heed_signals()

    def trial_starts(self, trial_id: str) -> None:
        """It starts, or starts again. One that had ended, as the books say and Tune did not hear, ends again."""
        self._halt.ended(trial_id)
        known = self._book.of(trial_id)
        if known is not None and known.end not in ("running", "failed"):
            self._ended_before.add(trial_id)

    def trial_trains(self, trial_id: str) -> None:
        """A sign of life: there is a report under way. Called from any thread."""
        self._halt.trains(trial_id)

    def trial_reported(self, trial_id: str) -> None:
        """The report that was under way has come."""
        self._halt.reported(trial_id)

    def trial_ended(self, trial_id: str) -> None:
        """There will be no report more."""
        self._halt.ended(trial_id)

    def had_ended(self, trial_id: str) -> bool:
        """Whether the trial ended before this driver took up the sweep."""
        return trial_id in self._ended_before

    def by_hand(self, trial_id: str) -> str | None:
        """When it was asked that this trial be stopped; None where it was not."""
        trial = self._book.of(trial_id)
        return requests.asked_to_stop(self._folder, trial.number) if trial is not None else None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """As Tune asks at each report: whether the trial is to end with it."""
        return self.had_ended(trial_id) or self.by_hand(trial_id) is not None

    def stop_all(self) -> bool:
        """As Tune asks: it would count all trials as ended, and a resume would not take them up."""
        return False

    def __reduce__(self) -> tuple[type[Stopper], tuple[()]]:
        """Tune writes its stopper down with the searcher; a resume brings its own."""
        return NoopStopper, ()

    def after_step(self) -> None:
        """Between two events of Tune's loop. Raises: SweepStopped when it is time."""
        self._halt.look()

    def _names(self, trials: set[str]) -> str:
        numbers = sorted(trial.number for i in trials if (trial := self._book.of(i)) is not None)
        return "trial " + ", ".join(map(str, numbers)) if numbers else ""


@contextlib.contextmanager
def steered(steering: Steering, saved: Callable[[], None]) -> Iterator[None]:
    """While the block runs, `tune.run` asks `steering` between two steps, and writes its state down with each trial
    that is drawn, is to take over another, or ends, after which it calls `saved`.

    Tune itself does so every ten seconds: a driver killed in between would draw a trial a second time, or go on with
    one that had ended. Its loop is made inside `tune.run`, which takes the class from its module.
    """

    class Steered(TuneController):
        def __getstate__(self) -> dict[str, Any]:
            state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
            del state["_stopper"]  # of this driver; the one that resumes has its own
            return state

        def resume(self, resume_config: ResumeConfig) -> None:
            super().resume(resume_config)
            # That a budget had been spent is written down as if all trials were drawn; the one of now decides anew.
            self.search_alg._finished = False
            self._stopper.stop_all()

        def step(self) -> None:
            before = _state(self)
            super().step()  # type: ignore[no-untyped-call]
            if _state(self) != before:
                self.checkpoint(force=True, wait=True)
                saved()
            try:
                steering.after_step()
            except SweepStopped:
                # Tune would ask them to end by themselves, which they hear after their next report.
                for trial in self.get_live_trials():  # type: ignore[no-untyped-call]
                    if trial.temporary_state.ray_actor is not None:
                        ray.kill(trial.temporary_state.ray_actor)
                raise

    def _state(controller: TuneController) -> dict[str, tuple[bool, bool]]:
        return {t.trial_id: (t.is_finished(), t.status == Trial.PAUSED) for t in controller.get_trials()}

    module: Any = importlib.import_module("ray.tune.tune")
    before, module.TuneController = module.TuneController, Steered
    try:
        yield
    finally:
        module.TuneController = before
