"""What ends trials early: settings to Ray Tune's schedulers, and what none of those does by itself.

HyperBand is left out. Tried with Ray 2.60: where all of four trials ran at a time, it paused them at the rung, ended
two and took two up again from their checkpoints, no epoch lost or doubled. But it compares only trials that have been
proposed, and a paused one counts as one of those that run at a time. So of six trials, two at a time, each was alone
in its bracket when it came to the rung, and all six ran to their end. Proposing all of a bracket at once would leave a
searcher nothing to learn from, and its brackets do not survive the driver. ASHA is the same rule without the waiting.

Population based training ends nothing, and has a file of its own, `search/population.py`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, assert_never

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from ocr_ray.config import RecipeConfig
from ocr_ray.distributions import Scalar
from ocr_ray.search.stopping import Stopping
from ocr_ray.search.trial import plain_value

NEVER = math.inf
"""Epochs after which the median rule may pause a trial that has no others to compare with: its processes would end."""

first_come: Callable[[], TrialScheduler] = FIFOScheduler


def stopping_notes(cfg: RecipeConfig, rule: Stopping) -> list[str]:
    """What a person reads as the sweep starts, one line each."""
    if rule.rule == "pbt":
        share = f"{cfg.sweep.quantile:.0%}"
        return [
            f"population: every {cfg.sweep.perturb_epochs} of {rule.epochs} epochs the worst {share} of the trials go "
            f"on from the weights of the best {share}, with values near theirs; each runs to its end"
        ]
    notes = [rule.one_line()]
    if cfg.sweep.against is not None:
        notes[0] += f", since hmean is weighed against {cfg.sweep.against}"
    if rule.rule != "none" and not rule.ends_early:
        notes.append(
            f"note: no trial is ended early: the first epoch at which {rule.rule} may, {rule.first} "
            f"(sweep.grace_epochs), is not below optim.epochs={rule.epochs}"
        )
    if rule.ends_early and rule.first % cfg.eval.every_epochs:
        notes.append(
            f"note: sweep.grace_epochs={rule.first} is no multiple of "
            f"eval.every_epochs={cfg.eval.every_epochs}: trials are compared by evaluations of earlier epochs"
        )
    return notes


Past = Callable[[str], Sequence[Mapping[str, Any]]]


def build_scheduler(
    stopping: Stopping, control: Mapping[str, Scalar] | None = None, past: Past = lambda trial_id: ()
) -> TrialScheduler:
    """Compares trials at the same `epoch`, never by Tune's own count, which starts again when a trial is resumed.

    No rung lies on a trial's last epoch, so that it ends by itself.

    Args: control are the drawn values of the trial that is never ended; past gives, by a trial's id, what it had
        reported before this process began.
    """
    if not stopping.ends_early:
        return first_come()
    match stopping.rule:
        case "asha":
            asha = AsyncHyperBandScheduler(
                time_attr="epoch",
                grace_period=stopping.first,
                reduction_factor=stopping.factor,
                max_t=stopping.epochs - 1,
                stop_last_trials=False,
            )
            return Judge(asha, control, past)
        case "median":
            median = MedianStoppingRule(
                time_attr="epoch",
                grace_period=stopping.first,
                min_samples_required=2,
                min_time_slice=NEVER,  # type: ignore[arg-type]  # says int, compares
            )
            return Judge(median, control, past)
        case "pbt" | "none":
            return first_come()
        case _:
            assert_never(stopping.rule)


class Judge(FIFOScheduler):
    """One of Ray's rules, with two things added: the control is compared with but never ended, and a resume loses no
    comparison, since Tune does not keep what its schedulers know.

    Args: as `build_scheduler`.
    """

    def __init__(
        self, rule: AsyncHyperBandScheduler | MedianStoppingRule, control: Mapping[str, Scalar] | None, past: Past
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rule, self._control, self._past = rule, control, past
        self._known: set[str] = set()

    @property
    def rule(self) -> AsyncHyperBandScheduler | MedianStoppingRule:
        """Ray's own."""
        return self._rule

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """As Tune calls it, once."""
        return super().set_search_properties(metric, mode) and self._rule.set_search_properties(metric, mode)

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        """A trial is new, or is known from before a resume: then the rule hears its reports again."""
        self._rule.on_trial_add(tune_controller, trial)
        if trial.trial_id in self._known:  # it starts again after its process was lost, and the rule has heard it
            return
        self._known.add(trial.trial_id)
        past = self._past(trial.trial_id)
        # One that goes on repeats its last report, about which nothing may have been decided yet.
        for report in past if trial.is_finished() else past[:-1]:
            self._note(tune_controller, trial, report)

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """The rule's decision, but for the control."""
        if self._is_control(trial):
            self._note(tune_controller, trial, result)
            return TrialScheduler.CONTINUE
        return self._rule.on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        """As Tune calls it."""
        self._rule.on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: TuneController, trial: Trial) -> None:
        """As Tune calls it."""
        self._rule.on_trial_remove(tune_controller, trial)

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """As Tune calls it."""
        self._rule.on_trial_error(tune_controller, trial)

    def debug_string(self) -> str:
        """As Tune's log has it."""
        return self._rule.debug_string()

    def _is_control(self, trial: Trial) -> bool:
        if self._control is None:
            return False
        return all(plain_value(trial.config.get(key)) == value for key, value in self._control.items())

    def _note(self, tune_controller: TuneController, trial: Trial, report: Mapping[str, Any]) -> None:
        """The rule hears of a report without deciding."""
        if isinstance(self._rule, MedianStoppingRule):
            # It refuses a trial that it has decided to end; this call of it only writes down.
            self._rule.on_trial_complete(tune_controller, trial, dict(report))
        else:
            self._rule.on_trial_result(tune_controller, trial, dict(report))
