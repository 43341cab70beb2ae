"""Which trials of earlier sweeps a searcher is told of, and that it learns from them, once."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from ray.tune.experiment import Experiment
from ray.tune.search import ConcurrencyLimiter, SearchGenerator
from ray.tune.search.optuna import OptunaSearch

from ocr_ray.config import CMLConfig, override
from ocr_ray.errors import RunError
from ocr_ray.mlflow_store import store_uri
from ocr_ray.record import CodeVersion, RunRecord
from ocr_ray.search.searchers import build_searcher
from ocr_ray.search.trial import OBJECTIVE
from ocr_ray.search.warm import EarlierTrial, find_earlier, keep_warm, kept_warm, study_with
from ocr_ray.settings import SweepConfig
from ocr_ray.spaces import Choice, Fixed, LogUniform, RandInt, SearchSpace, space_from_plain
from ocr_ray.tracking import Tracker
from ocr_ray.typed import flatten, with_values

SPACE = SearchSpace(
    "x.yaml",
    (
        ("optim.lr", LogUniform(1e-4, 1e-1)),
        ("data.batch_size", RandInt(4, 9)),
        ("loss.db.main", Choice(("dice", "bce"))),
        ("optim.epochs", Fixed(20)),
    ),
)
INPUTS = {"data.train": "t" * 64, "data.val": "v" * 64, "teacher.weights": "w" * 64}
RECORD = RunRecord(CodeVersion("0", "d"), "c", 0, {}, INPUTS)
CFG = override(CMLConfig(), ["optim.epochs=20"])


def write_sweep(
    storage: Path, name: str, trials: list[dict[str, Any]], record: RunRecord = RECORD, **tags: str
) -> str | None:
    """Finished trials whose configs are CFG but for these keys; `end` and `hmean` are the trial's. Returns: the id."""
    ledger = storage / name / "mlflow_runs.json"
    with Tracker(store_uri(None, storage), "ocr_ray", storage / "files", ledger, pytest.fail) as tracker:
        parent = tracker.run(name, name, tags={"search_space": "x.yaml", **record.tags(), **tags})
        for number, trial in enumerate(trials, start=1):
            run = tracker.run(f"{name}{number}", f"trial {number}", parent)
            changes = {key: value for key, value in trial.items() if "." in key}
            used = json.dumps(flatten(with_values(CFG, changes, "test")))
            run.report({"epoch": 20, OBJECTIVE: trial.get("hmean", 0.5), "config": used})
            run.tags({"end": trial.get("end", "finished")})
            run.tags({key: trial[key] for key in ("took_over", "stage") if key in trial})
    return parent.run_id


def find(storage: Path, *names: str, **changes: Any) -> tuple[tuple[EarlierTrial, ...], tuple[str, ...]]:
    cfg = with_values(CFG, changes, "test")
    found = find_earlier(names, cfg, SPACE, RECORD, storage, store_uri(None, storage))
    return found.trials, found.lines


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three earlier sweeps, in one database."""
    folder = tmp_path_factory.mktemp("runs")
    first = {"optim.lr": 0.01, "data.batch_size": 4, "loss.db.main": "bce", "hmean": 0.625}
    some = [
        first,
        {**first, "run.seed": 7, "ray.num_workers": 3, "hmean": 0.5},  # another draw of the same is as good
        {**first, "optim.lr": 0.5},
        {**first, "data.batch_size": 9},
        {**first, "loss.dml.weight": 2.0},
        {**first, "end": "stopped early"},
        {**first, "took_over": "trial 1 at epoch 10"},
        {**first, "stage": "confirm"},  # of a confirmation: no trial
    ]
    write_sweep(folder, "some", some)
    write_sweep(folder, "many", [{**first, "optim.lr": 0.2 + n} for n in range(4)] + [{**first, "optim.epochs": 9}] * 3)
    write_sweep(folder, "elsewhere", [first], dataclasses.replace(RECORD, inputs={**INPUTS, "data.val": "o" * 64}))
    return folder


def test_comparable_trials_are_taken_and_the_others_named_with_their_reasons(storage: Path) -> None:
    trials, lines = find(storage, "some", "some")
    values = {"optim.lr": 0.01, "data.batch_size": 4, "loss.db.main": "bce"}
    assert trials == (EarlierTrial(values, 0.625), EarlierTrial(values, 0.5))
    assert lines == (
        "warm start: some: 2 of 7 trials taken",
        "warm start: some: trial 3 not taken: optim.lr=0.5 lies outside the space",
        "warm start: some: trial 4 not taken: data.batch_size=9 lies outside the space",
        "warm start: some: trial 5 not taken: loss.dml.weight was 2.0, here it is 1.0",
        "warm start: some: trial 6 not taken: stopped early",
        "warm start: some: trial 7 not taken: went on from the weights of another trial",
    )


def test_many_reasons_are_counted(storage: Path) -> None:
    trials, lines = find(storage, "many")
    assert trials == ()
    assert lines == (
        "warm start: many: 0 of 7 trials taken",
        "warm start: many: 7 trials not taken: 4 of them with optim.lr outside the space; "
        "3 of them with another optim.epochs",
    )


def test_another_val_is_another_measure(storage: Path) -> None:
    assert find(storage, "elsewhere") == ((), ("warm start: elsewhere: not taken: other data.val",))


def test_sets_that_are_only_looked_at_make_no_other_measure(tmp_path: Path) -> None:
    looked_at = {**INPUTS, "data.keep": "k" * 64, "data.test": "e" * 64, "data.test.pictures": "p" * 16}
    trial = {"optim.lr": 0.01, "data.batch_size": 4, "loss.db.main": "bce"}
    write_sweep(tmp_path, "tested", [trial], dataclasses.replace(RECORD, inputs=looked_at))
    assert find(tmp_path, "tested")[1] == ("warm start: tested: 1 of 1 trials taken",)


def test_a_key_that_a_trial_did_not_draw_lies_nowhere_outside(tmp_path: Path) -> None:
    """The config's own ratio, 3, is not in the space: a trial with `dice` has it, and does not look at it."""
    plain = {
        "loss.db.main": {"choice": ["dice", "bce"]},
        "loss.db.ohem_ratio": {"uniform": [4, 9], "when": {"loss.db.main": "bce"}},
    }
    space = space_from_plain(plain, CFG, "x.yaml")
    write_sweep(
        tmp_path,
        "idle",
        [{"loss.db.main": "dice"}, {"loss.db.main": "bce"}, {"loss.db.main": "bce", "loss.db.ohem_ratio": 5.0}],
    )
    found = find_earlier(["idle"], CFG, space, RECORD, tmp_path, store_uri(None, tmp_path))
    assert [trial.values["loss.db.main"] for trial in found.trials] == ["dice", "bce"]
    assert found.trials[1].values["loss.db.ohem_ratio"] == 5.0
    assert found.lines[1] == "warm start: idle: trial 2 not taken: loss.db.ohem_ratio=3.0 lies outside the space"
    study_with(found.trials, space)  # every key of each lies where it may


def test_a_sweep_is_found_by_its_parents_id_as_well(storage: Path) -> None:
    ledger = json.loads((storage / "some" / "mlflow_runs.json").read_text())
    assert find(storage, ledger["runs"]["some"])[0] == find(storage, "some")[0]


def test_what_is_no_sweep_is_told(storage: Path) -> None:
    with pytest.raises(RunError, match=rf"--warm-start never: no sweep of that name in {storage}, and no such run in "):
        find(storage, "never")
    ledger = json.loads((storage / "some" / "mlflow_runs.json").read_text())
    with pytest.raises(RunError, match=r"--warm-start \w+: is a single run, expected a sweep"):
        find(storage, ledger["runs"]["some1"])


def test_a_searcher_that_looks_at_no_results_says_so(storage: Path) -> None:
    found = find(storage, "never mind", **{"sweep.searcher": "random"})
    assert found == ((), ("warm start: not used: sweep.searcher=random looks at no results",))


EARLIER = [
    EarlierTrial({"optim.lr": rate, "data.batch_size": 4, "loss.db.main": "dice"}, hmean)
    for rate, hmean in ((0.01, 0.9), (0.012, 0.88), (0.009, 0.89), (1e-3, 0.2), (2e-4, 0.1), (0.09, 0.3))
] * 2


def searcher_with(earlier: list[EarlierTrial]) -> SearchGenerator:
    storage = study_with(earlier, SPACE) if earlier else None
    built = build_searcher(SweepConfig(trials=8), (), 1, storage)
    assert isinstance(built, ConcurrencyLimiter)
    whole = SearchGenerator(built)
    domains = {key: SPACE.to_tune()[key] for key in SPACE.varied}
    whole.set_search_properties(OBJECTIVE, "max", domains)
    whole.add_configurations([Experiment("x", lambda config: None, config=domains, num_samples=8)])
    return whole


def study_of(searcher: SearchGenerator) -> optuna.Study:
    inner = searcher.searcher.searcher
    assert isinstance(inner, OptunaSearch)
    return inner._ot_study


def rates(searcher: SearchGenerator, count: int) -> list[float]:
    """What is drawn, one trial after another, the best of which lie at 0.01."""
    found = []
    for _ in range(count):
        trial = searcher.next_trial()
        assert trial is not None
        rate = float(trial.config["optim.lr"])
        found.append(rate)
        searcher.on_trial_complete(trial.trial_id, {OBJECTIVE: 0.9 - distance(rate), "training_iteration": 1})
    return found


def distance(rate: float) -> float:
    return abs(math.log10(rate) + 2)


def test_the_first_draws_are_where_earlier_trials_were_good() -> None:
    warm, cold = rates(searcher_with(EARLIER), 6), rates(searcher_with([]), 6)
    assert sum(map(distance, warm)) < 0.7 * sum(map(distance, cold))


def test_a_resume_is_told_of_them_once(tmp_path: Path) -> None:
    before = searcher_with(EARLIER)
    rates(before, 2)
    before.save_to_dir(str(tmp_path), "s")
    again = searcher_with(EARLIER)
    again.restore_from_dir(str(tmp_path))
    assert len(study_of(again).trials) == len(EARLIER) + 2
    rates(again, 1)
    assert len(study_of(again).trials) == len(EARLIER) + 3


def test_a_resume_reads_them_from_the_sweeps_folder(tmp_path: Path) -> None:
    assert kept_warm(tmp_path) == ()
    keep_warm(tmp_path, EARLIER)
    assert kept_warm(tmp_path) == tuple(EARLIER)
