"""A population of two, one with a learning rate at which nothing is learned: it takes the weights of the other over."""

import io
import json
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from rich.console import Console

from ocr_ray.config import load_config
from ocr_ray.donors import DONORS_FOLDER, INHERITED, Donor
from ocr_ray.errors import ConfigError, RunError
from ocr_ray.progress import LiveFeed
from ocr_ray.reports import USED_CONFIG, read_reports
from ocr_ray.rerun import rerun
from ocr_ray.spaces import space_from_plain
from ocr_ray.sweep_result import SweepResult
from ocr_ray.tune import sweep

pytestmark = pytest.mark.slow

EPOCHS, EVERY = 8, 2
LEARNS, STANDS_STILL = 1e-2, 1e-7
SPACE = {"optim.lr": {"choice": [LEARNS, STANDS_STILL]}}
SETTINGS = (
    *("sweep.scheduler=pbt", "sweep.searcher=grid", f"sweep.perturb_epochs={EVERY}", "sweep.trials=2"),
    *("ray.address=local", "ray.cpus_per_worker=0.9", f"optim.epochs={EPOCHS}", "data.epoch_size=80"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("population")


@pytest.fixture(scope="module")
def told(folder: Path, tiny: list[str]) -> tuple[SweepResult, str]:
    """The sweep, and what it said."""
    cfg = load_config(Path(tiny[0]), [*tiny[1:], *SETTINGS, f"ray.storage={folder}/runs"])
    text = io.StringIO()
    live = LiveFeed(Console(file=text, width=200))
    return sweep(cfg, space_from_plain(SPACE, cfg, "space"), name="p", live=live), text.getvalue()


@pytest.fixture(scope="module")
def result(told: tuple[SweepResult, str]) -> SweepResult:
    return told[0]


@pytest.fixture(scope="module")
def reports(result: SweepResult) -> dict[int, list[dict[str, Any]]]:
    """Of each trial, by epoch."""
    return {t.number: read_reports(result.folder / "train" / t.trial_id) for t in result.trials}


@pytest.fixture(scope="module")
def runs(result: SweepResult, folder: Path) -> dict[str, Run]:
    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return {str(run.info.run_name): run for run in found}


def own_and_inherited(reports: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The epochs before the first takeover, and those after it."""
    first = next(i for i, report in enumerate(reports) if INHERITED in report)
    return reports[:first], reports[first:]


def rate_of(report: dict[str, Any]) -> float:
    return float(json.loads(report[USED_CONFIG])["optim.lr"])


def test_a_bad_trial_goes_on_from_a_good_ones_weights(
    result: SweepResult, reports: dict[int, list[dict[str, Any]]]
) -> None:
    assert [(t.end, t.epochs) for t in result.trials] == [("finished", EPOCHS)] * 2
    assert not [r for r in reports[1] if INHERITED in r]
    by_itself, heir = own_and_inherited(reports[2])
    good = {r["epoch"]: r["loss.total"] for r in reports[1]}
    assert sorted(good) == list(range(1, EPOCHS + 1))
    donor = Donor.at(Path(heir[0][INHERITED]))
    assert donor.trial_id == result.trials[0].trial_id
    assert donor.epoch % EVERY == 0
    assert heir[0]["epoch"] == donor.epoch + 1  # it counts on from the epoch of the one that it took over
    assert {rate_of(r) for r in by_itself} == {STANDS_STILL}
    assert mean(r["loss.total"] for r in by_itself) > 1.3 * good[donor.epoch]  # it had learned nothing
    first = heir[0]["loss.total"]
    assert first < 1.15 * good[donor.epoch]  # and now stands, at once, where the other had stood
    assert first < good[1]  # no epoch from scratch comes there
    if rate_of(heir[0]) == LEARNS:  # the same weights, moments of Adam, rate and pictures as the other's
        assert first == pytest.approx(good[donor.epoch + 1], rel=1e-6)
    assert max(r["loss.total"] for r in heir) < 1.15 * good[donor.epoch]


def test_its_best_is_the_others_until_it_beats_it(
    result: SweepResult, reports: dict[int, list[dict[str, Any]]]
) -> None:
    _, bad = result.trials
    best = json.loads(Path(bad.best).with_suffix(".json").read_text())
    assert best["hmean"] == pytest.approx(bad.hmean)
    _, heir = own_and_inherited(reports[2])
    assert bad.hmean is not None
    assert bad.hmean >= reports[1][heir[0]["epoch"] - 2]["hmean.best"] > 0
    curve = [r["hmean.best"] for r in reports[2]]
    assert curve == sorted(curve)


def test_it_is_told_and_written_down(
    told: tuple[SweepResult, str], reports: dict[int, list[dict[str, Any]]], runs: dict[str, Run], folder: Path
) -> None:
    result, text = told
    _, bad = result.trials
    assert bad.took_over.startswith("trial 1 at epoch ")
    assert f"trial 2: went on from {bad.took_over} with optim.lr=" in text
    assert "population: every 2 of 8 epochs the worst 25% of the trials" in text
    assert {name: run.info.status for name, run in runs.items()} == dict.fromkeys(
        ["p", "trial 1", "trial 2"], "FINISHED"
    )
    assert runs["trial 2"].data.tags["took_over"] == bad.took_over
    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    rates = client.get_metric_history(runs["trial 2"].info.run_id, "value.optim.lr")
    assert {m.step: m.value for m in rates} == {r["epoch"]: rate_of(r) for r in reports[2]}
    assert rates[0].value == STANDS_STILL
    page = (result.folder / "report.html").read_text()
    assert 'data-plot="plot-schedule-0"' in page
    assert f"went on from the weights of {result.best_trial.took_over}" in page or not result.best_trial.took_over


def test_nothing_of_it_stays_but_what_runs_keep(result: SweepResult) -> None:
    assert not (result.folder / DONORS_FOLDER).exists()


def test_what_no_single_config_trained_is_not_run_again(runs: dict[str, Run], folder: Path) -> None:
    with pytest.raises(RunError, match=r"went on from the weights of trial 1 at epoch \d \(sweep.scheduler=pbt\)"):
        rerun(runs["trial 2"].info.run_id, f"sqlite:///{folder}/runs/mlflow.db")


def test_more_trials_than_there_is_room_for_are_refused_in_a_line(tiny: list[str], tmp_path: Path) -> None:
    more = ("sweep.searcher=random", "sweep.trials=500", f"ray.storage={tmp_path}/runs")
    cfg = load_config(Path(tiny[0]), [*tiny[1:], *SETTINGS, *more])
    space = space_from_plain({"loss.db.beta": {"uniform": [1, 20]}}, cfg, "space")
    with pytest.raises(ConfigError, match=r"sweep.trials: expected at most \d+ with sweep.scheduler=pbt, found 500"):
        sweep(cfg, space, name="p")
    assert not (tmp_path / "runs").exists()
