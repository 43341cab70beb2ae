"""What a sweep may cost: trials, hours, device-hours, how long it goes on without getting better, and failures."""

from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.search import SearchAlgorithm

from ocr_ray.search.cost import duration
from ocr_ray.search.room import Cost
from ocr_ray.search.trials import TrialBook, TrialSummary
from ocr_ray.settings import SweepConfig
from ocr_ray.stopwatch import HOUR_S, Stopwatch

SAVED_EVERY_S = 15.0


class Budget(tune.Stopper):
    """Ends a sweep when its budget is spent: no trial is started any more, each that runs ends with its next report.

    But for the control: it is what all else is compared with, and comes to its end.

    Args: device_hours gives what the sweep has cost up to now; watch has its wall time over all attempts; search
        proposes trials, and is told to propose no more; kept is what trials leave of the hours for a confirmation;
        is_control tells by a trial's id.
    """

    def __init__(
        self,
        cfg: SweepConfig,
        book: TrialBook,
        watch: Stopwatch,
        device_hours: Callable[[], float],
        search: SearchAlgorithm,
        kept: Callable[[], Cost] = Cost,
        is_control: Callable[[str], bool] = lambda trial_id: False,
    ) -> None:
        self._cfg, self._book, self._watch, self._device_hours, self._search = cfg, book, watch, device_hours, search
        self._kept, self._is_control = kept, is_control
        self._ended: set[str] = set()
        self._plateau = Plateau(cfg.plateau_margin)
        self._failed_before = {trial.trial_id for trial in book.trials if trial.end == "failed"}
        self.reason = ""
        """Why the sweep was ended before its last trial; empty where it was not."""
        self.too_many_failed = ""
        """Why it fails; empty where it does not."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this report is the trial's last."""
        self._look()
        if not self.reason or self._is_control(trial_id):
            return False
        self._ended.add(trial_id)
        return True

    def why_ended(self, trial_id: str) -> str:
        """The budget that ended this trial; empty where none did."""
        return self.reason if trial_id in self._ended else ""

    def stop_all(self) -> bool:
        """Called in each turn of Tune's loop. Never true: Tune would end trials in the middle of an epoch."""
        self._look()
        return False

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes its stopper down, and takes the one that it is given after a resume

    def _look(self) -> None:
        self._watch.save(SAVED_EVERY_S)
        trials = self._book.trials
        self._plateau.take(trials)
        is_over = len(trials) >= self._cfg.trials and all(trial.end != "running" for trial in trials)
        if not self.reason and not is_over:
            self.reason = self._spent()
        if not self.too_many_failed:
            self.too_many_failed = self._failed(trials)
        if self.reason or self.too_many_failed:
            self._search.set_finished()

    def _failed(self, trials: list[TrialSummary]) -> str:
        failed = [trial for trial in trials if trial.end == "failed"]
        self._failed_before &= {trial.trial_id for trial in failed}  # those that are tried again count
        now = [trial for trial in failed if trial.trial_id not in self._failed_before]
        if len(now) <= self._cfg.max_failed * self._cfg.trials:
            return ""
        reasons: dict[str, list[str]] = {}
        for trial in now:
            reasons.setdefault(trial.reason, []).append(str(trial.number))
        told = "; ".join(f"trial {', '.join(numbers)}: {reason}" for reason, numbers in reasons.items())
        return (
            f"{len(now)} of {self._cfg.trials} trials failed, more than sweep.max_failed={self._cfg.max_failed:g} "
            f"allows: {told}"
        )

    def _spent(self) -> str:
        cfg, hours, kept = self._cfg, self._watch.seconds / HOUR_S, self._kept()
        if cfg.max_hours is not None and hours + kept.seconds / HOUR_S >= cfg.max_hours:
            but = f", but for {duration(kept.seconds)} that are kept for the confirmation" if kept.seconds else ""
            return f"sweep.max_hours={cfg.max_hours:g} are spent{but}"
        if cfg.max_device_hours is not None:
            spent, later = self._device_hours(), kept.device_seconds / HOUR_S
            if spent + later >= cfg.max_device_hours:
                but = f", but for {later:.3g} that are kept for the confirmation" if later else ""
                return f"sweep.max_device_hours={cfg.max_device_hours:g} are spent ({spent:.3g}){but}"
        if cfg.plateau_trials is not None and self._plateau.trials >= cfg.plateau_trials:
            return (
                f"the last {self._plateau.trials} trials have not raised the best hmean by more than "
                f"sweep.plateau_margin={cfg.plateau_margin:g} (sweep.plateau_trials={cfg.plateau_trials})"
            )
        return ""


class Plateau:
    """Counts the ended trials since the best hmean last rose by more than a margin. Failed ones do not count."""

    def __init__(self, margin: float) -> None:
        self._margin = margin
        self._seen: set[str] = set()
        self._best = float("-inf")
        self.trials = 0

    def take(self, trials: list[TrialSummary]) -> None:
        """Looks at those that have ended since it last did, in the order of their numbers."""
        for trial in trials:
            if trial.end not in ("finished", "stopped early") or trial.trial_id in self._seen:
                continue
            self._seen.add(trial.trial_id)
            if trial.hmean is not None and trial.hmean > self._best + self._margin:
                self._best, self.trials = trial.hmean, 0
            else:
                self.trials += 1
