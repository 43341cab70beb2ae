"""What every searcher of a sweep does."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from ray.tune.experiment import Experiment
from ray.tune.search import SearchAlgorithm, Searcher, SearchGenerator

from ocr_ray.config import CMLConfig
from ocr_ray.distributions import Choice, LogUniform, QUniform, RandInt, Uniform, holds
from ocr_ray.errors import ConfigError
from ocr_ray.search.first import first_trials
from ocr_ray.search.searchers import build_searcher, searcher_notes
from ocr_ray.search.student import LATENCY, PARAMETERS
from ocr_ray.search.trial import OBJECTIVE, plain_value
from ocr_ray.settings import SweepConfig
from ocr_ray.spaces import SearchSpace
from ocr_ray.typed import with_values

SEARCHERS = ["tpe", "gp", "cmaes", "random", "grid"]
SPACE = SearchSpace(
    "x.yaml",
    (
        ("optim.lr", LogUniform(1e-4, 1e-1, points=4)),
        ("loss.db.alpha", Uniform(1.0, 10.0, points=2)),
        ("loss.db.beta", QUniform(2.0, 20.0, 2.0)),
        ("data.batch_size", RandInt(4, 9)),
        ("loss.db.main", Choice(("dice", "bce"))),
    ),
)
Values = dict[str, Any]


def sweep_config(searcher: str, trials: int = 12, **values: Any) -> SweepConfig:
    return with_values(
        SweepConfig(), {"searcher": searcher, "trials": trials, "default_first": False, **values}, "test"
    )


def algorithm(cfg: SweepConfig, at_once: int = 4) -> SearchAlgorithm:
    """The searcher as Tune's loop holds it, with the space, the metric and the number of trials."""
    first = first_trials(dataclasses.replace(CMLConfig(), sweep=cfg), SPACE)
    built = build_searcher(cfg, first.points, at_once)
    whole = SearchGenerator(built) if isinstance(built, Searcher) else built
    domains = SPACE.to_tune()
    whole.set_search_properties(*((OBJECTIVE, "max") if cfg.against is None else (None, None)), domains)
    whole.add_configurations([Experiment("x", lambda config: None, config=domains, num_samples=first.trials)])
    return whole


def run_through(searcher: SearchAlgorithm, score: Any, limit: int = 10**6) -> list[Values]:
    """One trial after another, each reporting twice and ending with `score` of its values."""
    seen: list[Values] = []
    while len(seen) < limit:
        trial = searcher.next_trial()
        if trial is None:
            break
        seen.append({key: plain_value(trial.config[key]) for key in SPACE.varied})
        cost = seen[-1]["loss.db.alpha"]
        result = {OBJECTIVE: score(seen[-1]), "epoch": 1, "training_iteration": 1, PARAMETERS: cost, LATENCY: cost}
        searcher.on_trial_result(trial.trial_id, result)
        searcher.on_trial_complete(trial.trial_id, result)
    return seen


def by_rate(values: Values) -> float:
    """Best at lr 1e-2."""
    return 1 - abs(math.log10(values["optim.lr"]) + 2) / 2


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_every_draw_is_in_bounds_and_the_config_takes_it(searcher: str) -> None:
    drawn = run_through(algorithm(sweep_config(searcher)), by_rate)
    assert len(drawn) == 12
    for values in drawn:
        assert all(holds(distribution, values[key]) for key, distribution in SPACE.distributions)
        with_values(CMLConfig(), values, "trial")
    assert len({tuple(values.values()) for values in drawn}) == 12


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_the_same_seed_gives_the_same_draws_and_another_seed_others(searcher: str) -> None:
    one, same, other = (run_through(algorithm(sweep_config(searcher, seed=seed)), by_rate) for seed in (3, 3, 4))
    assert one == same
    assert one != other


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_the_config_itself_goes_first_and_then_its_neighbours(searcher: str) -> None:
    own = SPACE.own_values(CMLConfig())
    assert own is not None
    drawn = run_through(algorithm(sweep_config(searcher, default_first=True, neighbours=2)), by_rate, 4)
    assert drawn[:3] == [own, {**own, "optim.lr": 5e-4}, {**own, "optim.lr": 2e-3}]
    assert drawn[3] not in drawn[:3]
    assert run_through(algorithm(sweep_config(searcher)), by_rate, 1) != [own]


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_no_more_trials_at_a_time_than_there_is_room_for(searcher: str) -> None:
    search = algorithm(sweep_config(searcher), at_once=2)
    first, second = search.next_trial(), search.next_trial()
    assert first is not None
    assert second is not None
    assert search.next_trial() is None
    search.on_trial_complete(first.trial_id, {OBJECTIVE: 0.5, "training_iteration": 1})
    assert search.next_trial() is not None


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_its_state_survives_a_save_and_a_restore(searcher: str, tmp_path: Path) -> None:
    whole = run_through(algorithm(sweep_config(searcher, seed=5)), by_rate)
    half = algorithm(sweep_config(searcher, seed=5))
    before = run_through(half, by_rate, 6)
    half.save_to_dir(str(tmp_path), session_str="s")
    again = algorithm(sweep_config(searcher, seed=99))
    assert again.has_checkpoint(str(tmp_path))
    again.restore_from_dir(str(tmp_path))
    assert before + run_through(again, by_rate) == whole


@pytest.mark.parametrize("searcher", SEARCHERS)
@pytest.mark.filterwarnings("ignore:Clip non-finite values")  # Optuna's, of gp, and rightly
@pytest.mark.parametrize("bad", [math.nan, -math.inf, 0.0])
def test_a_trial_without_a_number_does_no_harm(searcher: str, bad: float) -> None:
    def score(values: Values) -> float:
        return bad if values["optim.lr"] > 1e-2 else by_rate(values)

    drawn = run_through(algorithm(sweep_config(searcher, trials=14)), score)
    assert len(drawn) == 14
    assert all(holds(LogUniform(1e-4, 1e-1), values["optim.lr"]) for values in drawn)


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_a_lost_trial_does_no_harm(searcher: str) -> None:
    search = algorithm(sweep_config(searcher, trials=3))
    trial = search.next_trial()
    assert trial is not None
    search.on_trial_complete(trial.trial_id, error=True)
    assert len(run_through(search, by_rate)) == 2


@pytest.mark.parametrize("searcher", [name for name in SEARCHERS if name != "cmaes"])
def test_two_objectives_survive_a_restore_and_a_trial_without_a_number(searcher: str, tmp_path: Path) -> None:
    against = "latency" if searcher == "tpe" else "parameters"

    def score(values: Values) -> float:
        return math.nan if values["optim.lr"] > 5e-2 else by_rate(values)

    whole = run_through(algorithm(sweep_config(searcher, trials=13, against=against)), score)
    half = algorithm(sweep_config(searcher, trials=13, against=against))
    before = run_through(half, score, 7)
    half.save_to_dir(str(tmp_path), session_str="s")
    again = algorithm(sweep_config(searcher, trials=13, against=against, seed=99))
    again.restore_from_dir(str(tmp_path))
    assert before + run_through(again, score) == whole
    assert len(whole) == 13


def test_tpe_looks_for_the_cheap_as_well_as_for_the_good() -> None:
    drawn = run_through(algorithm(sweep_config("tpe", trials=60, against="parameters")), lambda values: 0.5)
    assert sum(v["loss.db.alpha"] for v in drawn[-20:]) < sum(v["loss.db.alpha"] for v in drawn[:20])


def test_cmaes_and_early_stopping_are_refused_with_two_objectives() -> None:
    with pytest.raises(
        ConfigError, match=r"sweep.searcher: expected tpe, gp, .* with sweep.against=latency, found cmaes"
    ):
        sweep_config("cmaes", against="latency")
    with pytest.raises(
        ConfigError, match=r"sweep.scheduler: expected auto or none with sweep.against=latency, found asha"
    ):
        sweep_config("tpe", against="latency", scheduler="asha")


@pytest.mark.parametrize("searcher", ["tpe", "gp", "cmaes"])
def test_it_learns_where_the_good_values_are(searcher: str) -> None:
    drawn = run_through(algorithm(sweep_config(searcher, trials=30)), by_rate)
    late = sorted(by_rate(values) for values in drawn[-10:])
    early = sorted(by_rate(values) for values in drawn[:10])
    assert late[5] > early[5]


def test_cmaes_says_what_it_cannot_learn_from() -> None:
    cfg = sweep_config("cmaes")
    assert searcher_notes(cfg, SPACE) == [
        "note: cmaes learns from numbers alone; drawn at random in every trial: loss.db.main"
    ]
    one = SearchSpace("x.yaml", (("optim.lr", LogUniform(1e-4, 1e-1)),))
    assert "needs two numbers or more" in searcher_notes(cfg, one)[0]
    assert searcher_notes(sweep_config("tpe"), SPACE) == []
