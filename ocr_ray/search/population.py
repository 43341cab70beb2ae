"""Population based training: every few epochs a trial that does poorly goes on from the weights of one that does well,
with values near those of that one. What comes out is a schedule of values, not a point.

Tune's class decides who takes over whom. It hands on what Tune holds as a trial's checkpoint, and Tune holds none of
ours: they are Ray Train's, who drops them as a run goes on. So a trial reports to Tune a file that points to a copy of
its checkpoint (`donors.py`), and the one that takes over is started again with that pointer.

Source: Jaderberg et al. 2017, arXiv 1711.09846.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.train import Checkpoint
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler

from ocr_ray.config import RecipeConfig
from ocr_ray.distributions import Choice, Distribution, LogUniform, QUniform, RandInt, Uniform, to_domain
from ocr_ray.donors import INHERITED, Donor, drop, pointed
from ocr_ray.errors import ConfigError
from ocr_ray.search.schedulers import Past
from ocr_ray.search.trial import HELD, JUDGED_BY
from ocr_ray.spaces import SearchSpace

MAY_VARY = ("optim.lr", "optim.weight_decay")
"""Beside the keys of `loss`: what means the same in the middle of a run as at its start."""


def check_population(cfg: RecipeConfig, space: SearchSpace) -> None:
    """Raises: ConfigError when a sweep of `sweep.scheduler=pbt` cannot be over `space`, or no trial would take over."""
    for key in space.varied:
        if key not in MAY_VARY and not key.startswith("loss."):
            raise ConfigError(
                f"{space.source}: {key}: cannot change in the middle of a run, expected with sweep.scheduler=pbt only "
                f"{', '.join(MAY_VARY)} and keys of loss"
            )
    every = cfg.sweep.perturb_epochs
    if every % cfg.eval.every_epochs:
        raise ConfigError(
            f"sweep.perturb_epochs: expected a multiple of eval.every_epochs={cfg.eval.every_epochs}, found {every}"
        )
    if every >= cfg.optim.epochs:
        raise ConfigError(f"sweep.perturb_epochs: expected less than optim.epochs={cfg.optim.epochs}, found {every}")
    if cfg.sweep.trials < 2:
        raise ConfigError(f"sweep.trials: expected at least 2 with sweep.scheduler=pbt, found {cfg.sweep.trials}")


def must_run_at_once(trials: int, at_once: int) -> None:
    """Raises: ConfigError where a population would have to take turns: each turn costs a start of a trial's workers."""
    if trials > at_once:
        raise ConfigError(
            f"sweep.trials: expected at most {at_once} with sweep.scheduler=pbt, found {trials}: its trials run side "
            "by side, and there is no room for more (ray.cpus_per_worker, ray.gpus_per_worker, sweep.max_concurrent)"
        )


class Population(PopulationBasedTraining):
    """Tune's population based training over the varied keys of a space, which no value leaves.

    Args: past gives, by a trial's id, what it had reported before this process began: Tune does not keep what its
        schedulers know.
    """

    def __init__(self, cfg: RecipeConfig, space: SearchSpace, past: Past) -> None:
        distributions = {key: d for key, d in space.distributions if key in space.varied}
        super().__init__(
            time_attr="epoch",
            metric=JUDGED_BY,
            perturbation_interval=cfg.sweep.perturb_epochs,
            hyperparam_mutations={
                key: list(d.values) if isinstance(d, Choice) else to_domain(d) for key, d in distributions.items()
            },
            quantile_fraction=cfg.sweep.quantile,
            custom_explore_fn=lambda values: {**values, **clipped(values, distributions)},
            log_config=False,
            require_attrs=False,  # a trial that failed says no more than that
        )
        self._epochs, self._every, self._past = cfg.optim.epochs, cfg.sweep.perturb_epochs, past

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """As Tune calls it, with the metric by which trials are ranked in the end."""
        return bool(super().set_search_properties(None, mode))

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        """A trial is new, or is known from before a resume or a loss of its process: then it stands where it stood."""
        super().on_trial_add(tune_controller, trial)
        past, state, donor = self._past(trial.trial_id), self._trial_state[trial], donor_of(trial)
        # One that goes on repeats its last report, about which nothing may have been decided yet.
        for report in past if trial.is_finished() else past[:-1]:
            if report["epoch"] and report["epoch"] % self._every == 0:
                self._save_trial_state(state, report["epoch"], dict(report), trial)
                state.last_perturbation_time = report["epoch"]
        if donor is not None and donor.trial_id != trial.trial_id:  # it was to take over
            state.last_perturbation_time = donor.epoch

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Ray's decision, but that nobody takes over with nothing left to train, and nobody waits for others: there is
        room for all."""
        if result.get("epoch", 0) >= self._epochs:
            return TrialScheduler.CONTINUE
        decision = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if decision == TrialScheduler.PAUSE else decision

    def _checkpoint_or_exploit(
        self, trial: Trial, tune_controller: TuneController, upper_quantile: list[Trial], lower_quantile: list[Trial]
    ) -> None:
        """As Ray's, which calls it. There one can be taken over only when it was among the best at its own last
        comparison, and the first that comes to an epoch is compared with nobody."""
        for other in upper_quantile:
            state, donor = self._trial_state[other], donor_of(other)
            if state.last_checkpoint is None and donor is not None and donor.trial_id == other.trial_id:
                state.last_checkpoint = other.checkpoint if Path(donor.path).exists() else None
        super()._checkpoint_or_exploit(trial, tune_controller, upper_quantile, lower_quantile)

    def _exploit(self, tune_controller: TuneController, trial: Trial, trial_to_clone: Trial) -> None:
        """As Ray's, which calls it. Of equals none takes over, and none goes back to where it came from: another may be
        slow, and have left nothing newer yet."""
        state, theirs = self._trial_state[trial], self._trial_state[trial_to_clone]
        assert isinstance(theirs.last_checkpoint, Checkpoint), "Ray has waited for it"
        donor, came_from = pointed(Path(theirs.last_checkpoint.path)), (state.last_result or {}).get(INHERITED)
        if donor is None or donor.name == came_from or (theirs.last_score or 0.0) <= (state.last_score or 0.0):
            return
        super()._exploit(tune_controller, trial, trial_to_clone)
        state.last_perturbation_time = donor.epoch  # its epochs count on from there


class DonorKeeper:
    """In the driver: drops donors that nobody needs.

    Args: folder is the sweep's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._newest: dict[str, int] = {}

    def heard(self, trial: Trial, trials: list[Trial], result: Mapping[str, Any]) -> None:
        """Takes note of a report, of which Tune's scheduler has heard before."""
        if HELD not in result:
            return
        start = donor_of(trial)
        # One that takes over may go back, and leave donors of earlier epochs than this.
        goes_back = start is not None and start.trial_id != trial.trial_id
        self._newest[trial.trial_id] = start.epoch if start is not None and goes_back else int(result["epoch"])
        running = (donor_of(t) for t in trials if not t.is_finished())
        drop(self._folder, self._newest, {donor.path for donor in running if donor is not None})


def clipped(values: Mapping[str, Any], distributions: Mapping[str, Distribution]) -> dict[str, Any]:
    """The values that have a distribution, moved to its nearest end where they lie outside."""

    def clip(value: Any, distribution: Distribution) -> Any:
        match distribution:
            case LogUniform(low, high) | Uniform(low, high):
                return min(max(value, low), high)
            case QUniform(low, high, q):
                return min(max(round(value / q) * q, low), high)
            case RandInt(low, high):
                return min(max(round(value), low), high - 1)
            case _:
                return value

    return {key: clip(values[key], distribution) for key, distribution in distributions.items()}


def donor_of(trial: Trial) -> Donor | None:
    """What Tune would start the trial from: its own last donor, or that of another which it is to take over."""
    return pointed(Path(trial.checkpoint.path)) if trial.checkpoint is not None else None
