"""Who takes over whom in a population, what it may vary, and that a resume goes on in step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.train._internal.session import _TrainingResult
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from ocr_ray.config import StudentConfig
from ocr_ray.distributions import Choice, LogUniform, QUniform, RandInt
from ocr_ray.donors import INHERITED, Donor, pin, point
from ocr_ray.errors import ConfigError
from ocr_ray.search.population import DonorKeeper, Population, check_population, clipped, donor_of, must_run_at_once
from ocr_ray.search.trial import HELD, OBJECTIVE
from ocr_ray.spaces import SearchSpace
from ocr_ray.typed import with_values

SPACE = SearchSpace("space", (("optim.lr", LogUniform(1e-4, 1e-2)),))
Reports = dict[str, Sequence[dict[str, Any]]]


def config(**sweep: Any) -> StudentConfig:
    values = {"scheduler": "pbt", "searcher": "random", "perturb_epochs": 2, "trials": 2, **sweep}
    fixed = {"optim.epochs": 8, "eval.every_epochs": 1}
    return with_values(StudentConfig(), {**fixed, **{f"sweep.{k}": v for k, v in values.items()}}, "test")


class Trials:
    """Tune's controller, as far as the scheduler asks it: it saves and pauses at once."""

    def __init__(self, folder: Path, past: Reports | None = None, status: str = Trial.RUNNING) -> None:
        self.folder, self.search_alg = folder, None
        self.population = Population(config(), SPACE, lambda trial_id: (past or {}).get(trial_id, ()))
        self.population.set_search_properties(OBJECTIVE, "max")
        self.of = {name: Trial("x", trial_id=name, config={"optim.lr": 1e-3}, stub=True) for name in "ab"}
        for trial in self.of.values():
            trial.set_status(status)

    def add(self) -> None:
        for trial in self.of.values():
            self.population.on_trial_add(self, trial)

    def get_trials(self) -> list[Trial]:
        return list(self.of.values())

    def pause_trial(self, trial: Trial, should_checkpoint: bool) -> None:
        trial.set_status(Trial.PAUSED)

    def _schedule_trial_save(self, trial: Trial, result: dict[str, Any]) -> Any:
        checkpoint = trial.checkpoint  # as the report left it, see `hold`
        return checkpoint

    def hold(self, name: str, epoch: int, of: str | None = None) -> Donor:
        """What Tune holds of the trial: a pointer to a donor of its own, or of another."""
        source = self.folder / "checkpoint"
        source.mkdir(exist_ok=True)
        donor = pin(self.folder, of or name, epoch, source, self.folder / "none")
        at = self.folder / f"pointer-{donor.name}-{name}"
        at.mkdir()
        point(at, donor)
        manager = self.of[name].run_metadata.checkpoint_manager
        manager._latest_checkpoint_result = _TrainingResult(checkpoint=tune.Checkpoint(str(at)), metrics={})
        return donor

    def report(self, name: str, epoch: int, hmean: float, **more: Any) -> str:
        result = {"epoch": epoch, "hmean": hmean, OBJECTIVE: hmean, **more}
        return self.population.on_trial_result(self, self.of[name], result)


@pytest.fixture
def trials(tmp_path: Path) -> Trials:
    trials = Trials(tmp_path)
    trials.add()
    return trials


def test_the_worse_one_goes_on_from_the_better_ones_donor_with_values_near_its(trials: Trials) -> None:
    trials.of["a"].config["optim.lr"] = 5e-3
    trials.report("a", 2, 0.5)
    donor = trials.hold("a", 2)
    assert trials.report("b", 1, 0.1) == TrialScheduler.CONTINUE  # not before its time
    assert trials.report("b", 2, 0.1) == TrialScheduler.NOOP
    assert trials.of["b"].status == Trial.PAUSED
    assert donor_of(trials.of["b"]) == donor
    assert 1e-4 <= trials.of["b"].config["optim.lr"] <= 1e-2
    assert trials.of["b"].config["optim.lr"] != 1e-3
    assert trials.of["a"].config["optim.lr"] == 5e-3
    trials.of["b"].set_status(Trial.RUNNING)
    assert trials.report("b", 3, 0.4, **{INHERITED: donor.name}) == TrialScheduler.CONTINUE  # it counts on from epoch 2
    # a is slow, and has left nothing newer
    assert trials.report("b", 4, 0.4, **{INHERITED: donor.name}) == TrialScheduler.CONTINUE
    assert trials.of["b"].status == Trial.RUNNING


def test_of_equals_none_takes_over_and_nobody_waits_or_changes_at_the_end(trials: Trials) -> None:
    trials.hold("a", 2)
    trials.report("b", 2, 0.0)
    trials.report("a", 2, 0.0)
    assert trials.report("b", 4, 0.0) == TrialScheduler.CONTINUE
    trials.hold("a", 4)
    trials.report("a", 4, 0.5)
    trials.of["a"].set_status(Trial.PENDING)  # its process was lost: Ray would make room for it
    assert trials.report("b", 8, 0.0) == TrialScheduler.CONTINUE
    assert trials.report("b", 6, 0.6) == TrialScheduler.CONTINUE


def test_a_report_of_failure_decides_nothing(trials: Trials) -> None:
    assert trials.report("a", 0, float("nan"), failed="out of memory") == TrialScheduler.CONTINUE
    trials.hold("a", 2)
    assert trials.report("b", 2, 0.1) == TrialScheduler.CONTINUE


def test_a_resume_goes_on_in_step_and_knows_who_was_better(tmp_path: Path) -> None:
    past = {
        "a": [{"epoch": epoch, "hmean": 0.5} for epoch in (1, 2, 3, 4, 5)],
        "b": [{"epoch": epoch, "hmean": 0.1} for epoch in (1, 2, 3, 4, 5)],
    }
    resumed = Trials(tmp_path, past, Trial.PENDING)
    donor = resumed.hold("a", 4)
    resumed.hold("b", 4)
    resumed.add()
    for trial in resumed.of.values():
        trial.set_status(Trial.RUNNING)
    assert resumed.report("b", 5, 0.1) == TrialScheduler.CONTINUE  # its last report comes again
    assert resumed.report("b", 6, 0.1) == TrialScheduler.NOOP
    assert donor_of(resumed.of["b"]) == donor


def test_a_resume_of_one_that_was_to_take_over_counts_from_its_donor(tmp_path: Path) -> None:
    past = {name: [{"epoch": epoch, "hmean": 0.5} for epoch in (1, 2, 3, 4)] for name in "ab"}
    resumed = Trials(tmp_path, past, Trial.PENDING)
    resumed.hold("b", 2, of="a")
    resumed.add()
    state = {name: resumed.population._trial_state[trial] for name, trial in resumed.of.items()}
    assert state["b"].last_perturbation_time == 2
    assert state["a"].last_perturbation_time == 2  # about 4 nothing may have been decided yet
    assert state["a"].last_checkpoint is None


def test_donors_stay_until_nobody_needs_them(tmp_path: Path) -> None:
    trials = Trials(tmp_path)
    keeper, everyone = DonorKeeper(tmp_path), trials.get_trials()
    first = trials.hold("a", 2)
    keeper.heard(trials.of["a"], everyone, {"epoch": 2, HELD: first.path})
    trials.of["b"].run_metadata.checkpoint_manager._latest_checkpoint_result = trials.of["a"].latest_checkpoint_result
    second = trials.hold("a", 4)
    keeper.heard(trials.of["a"], everyone, {"epoch": 4, HELD: second.path})
    assert Path(first.path).exists()  # b is to go on from it
    trials.hold("b", 4)
    keeper.heard(trials.of["a"], everyone, {"epoch": 5})
    assert Path(first.path).exists()
    keeper.heard(trials.of["a"], everyone, {"epoch": 4, HELD: second.path})
    assert not Path(first.path).exists()
    assert Path(second.path).exists()


def test_no_value_leaves_the_space() -> None:
    space = {
        "a": LogUniform(0.1, 10.0),
        "b": QUniform(0.0, 1.0, 0.25),
        "c": RandInt(1, 4),
        "d": Choice(("x", "y")),
    }
    assert clipped({"a": 12.0, "b": 1.2, "c": 4, "d": "y", "e": 9}, space) == {"a": 10.0, "b": 1.0, "c": 3, "d": "y"}
    assert clipped({"a": 0.08, "b": 0.3, "c": 0, "d": "x"}, space) == {"a": 0.1, "b": 0.25, "c": 1, "d": "x"}


@pytest.mark.parametrize(
    ("key", "sweep", "message"),
    [
        ("data.batch_size", {}, "space: data.batch_size: cannot change in the middle of a run"),
        ("optim.lr", {"perturb_epochs": 8}, "sweep.perturb_epochs: expected less than optim.epochs=8, found 8"),
        ("optim.lr", {"trials": 1}, "sweep.trials: expected at least 2 with sweep.scheduler=pbt, found 1"),
        ("loss.db.beta", {"searcher": "tpe"}, "sweep.searcher: expected random or grid with sweep.scheduler=pbt"),
        ("loss.db.beta", {"confirm": 2}, "sweep.confirm: expected 0 with sweep.scheduler=pbt, found 2"),
        ("loss.db.beta", {"quantile": 0.6}, "sweep.quantile: expected more than 0 and at most 0.5, found 0.6"),
        ("loss.db.beta", {"perturb_epochs": 0}, "sweep.perturb_epochs: expected at least 1, found 0"),
    ],
)
def test_what_a_population_cannot_be_is_told_in_a_line(key: str, sweep: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as told:
        check_population(config(**sweep), SearchSpace("space", ((key, Choice((1, 2))),)))
    assert "\n" not in str(told.value)


def test_takeovers_lie_on_evaluations_and_a_population_runs_side_by_side() -> None:
    cfg = with_values(config(perturb_epochs=3), {"eval.every_epochs": 2}, "test")
    with pytest.raises(ConfigError, match=r"expected a multiple of eval.every_epochs=2, found 3"):
        check_population(cfg, SPACE)
    must_run_at_once(2, 2)
    with pytest.raises(ConfigError, match=r"sweep.trials: expected at most 2 with sweep.scheduler=pbt, found 3"):
        must_run_at_once(3, 2)
