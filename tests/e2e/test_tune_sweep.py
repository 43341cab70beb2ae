"""Sweeps of real training runs on a real cluster of our own, written to a real database."""

import contextlib
import dataclasses
import html
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from rich.console import Console

from ocr_ray.config import RecipeConfig, config_digest, load_config, override
from ocr_ray.data.synth import SynthConfig, render_set
from ocr_ray.engine.per_image import aligned, read_per_image
from ocr_ray.errors import ClusterError, RunError
from ocr_ray.evidence import hmean_of
from ocr_ray.held_out import evaluate_on_test
from ocr_ray.model_card import ModelCard, load_detector, save_detector
from ocr_ray.progress import LiveFeed, ProgressEvent
from ocr_ray.recipes import build_model
from ocr_ray.record import RunRecord
from ocr_ray.report.read import read_sweep
from ocr_ray.report.verdict import headline
from ocr_ray.reports import read_reports
from ocr_ray.search.trials import TrialBook
from ocr_ray.search.warm import kept_warm
from ocr_ray.session import connected
from ocr_ray.settings import ClusterConfig
from ocr_ray.spaces import space_from_plain
from ocr_ray.status import details, standing
from ocr_ray.sweep_result import SweepResult
from ocr_ray.tracking import PARENT_TAG
from ocr_ray.tune import sweep
from tests.browser import Browser

TINY = Path(__file__).resolve().parents[1] / "tiny_student.yaml"
DIVERGES, STANDS_STILL = 1e30, 1e-9
LARGER = (
    *("optim.epochs=6", "data.epoch_size=40", "data.augment.crop_width=128", "data.augment.crop_height=128"),
    "eval.resize.limit_side_len=320",
)
SPACE = {
    "optim.lr": {"choice": [1e-2, STANDS_STILL, DIVERGES]},
    "loss.db.beta": {"uniform": [1.0, 20.0]},
    "optim.warmup_epochs": 0,
}


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return render_set(tmp_path_factory.mktemp("data"), SynthConfig(train=16, val=4), seed=0)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Labels of an old domain, and of a test set whose pictures nobody can read before somebody mends them."""
    old, test = render_set(tmp_path_factory.mktemp("others"), SynthConfig(train=3, val=5), seed=1)
    for picture in test.parent.glob("val/*.jpg"):
        picture.rename(picture.with_suffix(".hidden"))
        picture.write_bytes(b"no picture")
    return old, test


def tiny(labels: tuple[Path, Path], storage: Path, *overrides: str) -> RecipeConfig:
    train, val = labels
    given = [f"data.train=[{train}]", f"data.val=[{val}]", f"ray.storage={storage}", "ray.cpus_per_worker=0.45"]
    return load_config(TINY, [*given, *overrides])


@pytest.fixture(scope="module")
def _another_cluster() -> Iterator[None]:
    """One more cluster on this machine: a run's processes must not take it for theirs, nor fail to choose."""
    program = "import ray; ray.init('local', num_cpus=1, include_dashboard=False); print('up', flush=True); input()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        yield
        other.communicate("\n", timeout=60)


@pytest.fixture(scope="module", autouse=True)
def _cluster(_another_cluster: None) -> Iterator[None]:
    """One for all sweeps of this file; those of the command line start their own."""
    with connected(ClusterConfig()):
        yield


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def result(labels: tuple[Path, Path], storage: Path, others: tuple[Path, Path]) -> SweepResult:
    """Four trials, two at a time. By the seed: the config's own values, a rate that diverges, one that learns, and one
    so low that its trial is the worst when it comes to the rung at epoch 4 of 6."""
    cfg = tiny(
        labels,
        storage,
        *LARGER,
        *("sweep.trials=4", "sweep.searcher=random", "sweep.seed=2"),
        *("sweep.scheduler=asha", "sweep.grace_epochs=4", "sweep.reduction_factor=2", "sweep.max_concurrent=2"),
        f"data.keep={others[0]}",
    )
    weights = storage / "start.safetensors"  # what a run draws that starts from nothing
    save_detector(weights, build_model(cfg).model.Student, ModelCard(detector=cfg.student.detector))
    cfg = override(cfg, [f"student.weights={weights}"])
    return sweep(cfg, space_from_plain(SPACE, cfg, "space"), name="first")


@pytest.fixture(scope="module")
def runs(result: SweepResult, storage: Path) -> dict[str, Run]:
    """MLflow's runs by name."""
    return runs_of("first", storage)


def runs_of(name: str, storage: Path) -> dict[str, Run]:
    """The sweep's own and its trials', by name."""
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    (parent,) = [run for run in found if run.info.run_name == name]
    children = [run for run in found if run.data.tags.get(PARENT_TAG) == parent.info.run_id]
    return {run.info.run_name: run for run in (parent, *children)}


def test_every_trial_ends_as_its_rate_lets_it(result: SweepResult) -> None:
    assert [t.number for t in result.trials] == [1, 2, 3, 4]
    ends = {1e-2: "finished", STANDS_STILL: "stopped early", DIVERGES: "failed"}
    assert [t.end for t in result.trials] == [ends[float(str(t.values["optim.lr"]))] for t in result.trials]
    assert {t.end for t in result.trials} == set(ends.values())  # else the seed draws too little
    for trial in result.trials:
        assert trial.epochs == {"finished": 6, "stopped early": 4, "failed": 0}[trial.end]
        assert ("loss is not finite at step" in trial.reason) == (trial.end == "failed")
        assert trial.reason.startswith("below the best half at epoch 4 (") == (trial.end == "stopped early")
        assert trial.seconds > 1


def test_the_first_trial_takes_the_configs_own_values_and_the_fixed_ones_are_not_varied(result: SweepResult) -> None:
    assert result.trials[0].values == {"optim.lr": 1e-2, "loss.db.beta": 10.0}


def test_what_it_was_going_to_cost_was_said(runs: dict[str, Run]) -> None:
    said = runs["first"].data.tags["estimate"]
    assert re.fullmatch(
        r"sweep: at most .* (s|min), .* device-hours and 0\.\d\d GiB of disk, by .* s a step in its first trial", said
    )


def test_the_best_is_the_best_over_all_epochs_and_its_file_is_there(result: SweepResult) -> None:
    reached = [t.hmean for t in result.trials if t.hmean is not None]
    assert result.hmean == max(reached) > 0
    assert result.best_trial.values["optim.lr"] == 1e-2
    assert result.best == Path(result.best_trial.best)
    assert result.best.is_file()
    assert result.best.with_suffix(".json").is_file()


def test_the_books_on_disk_say_what_the_result_says(result: SweepResult) -> None:
    book = TrialBook(result.folder, {})
    book.load()
    assert tuple(book.trials) == result.trials


def test_it_is_told_that_so_few_trials_cannot_show_whether_stopping_was_safe(result: SweepResult) -> None:
    assert (result.ranks.finished, result.ranks.stopped) == (2, 1)
    assert result.ranks.lines() == ["early stopping: 2 trials finished, too few to say whether it was safe"]


def test_children_trained_with_what_the_table_says_and_differ_as_it_says(
    result: SweepResult, runs: dict[str, Run]
) -> None:
    trained = [t for t in result.trials if t.epochs]
    for trial in trained:
        params = runs[f"trial {trial.number}"].data.params
        assert {key: params[key] for key in trial.values} == {k: str(v) for k, v in trial.values.items()}
        assert params["optim.warmup_epochs"] == "0.0"  # fixed by the space, in the worker's own words
    one, other = (runs[f"trial {t.number}"].data.params for t in trained if t.values["optim.lr"] == 1e-2)
    assert {key for key in one if one[key] != other[key]} == {"loss.db.beta"}


def test_a_child_that_never_reported_shows_what_was_drawn_and_why_it_failed(
    result: SweepResult, runs: dict[str, Run]
) -> None:
    failed = next(t for t in result.trials if t.end == "failed")
    run = runs[f"trial {failed.number}"]
    assert run.info.status == "FAILED"
    assert run.data.tags["reason"] == failed.reason
    assert run.data.tags["drawn.optim.lr"] == str(DIVERGES)
    assert not run.data.params


def test_early_ends_are_tagged_and_all_children_hang_on_one_finished_parent(
    result: SweepResult, runs: dict[str, Run]
) -> None:
    parent = runs["first"]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["best_trial"] == str(result.best_trial.number)
    assert parent.data.metrics["hmean.best"] == result.hmean
    for trial in result.trials:
        run = runs[f"trial {trial.number}"]
        assert run.data.tags[PARENT_TAG] == parent.info.run_id
        assert run.data.tags["end"] == trial.end
        assert run.data.tags["stopped_early"] == str(trial.end == "stopped early").lower()
        assert run.info.status == ("FAILED" if trial.end == "failed" else "FINISHED")


def test_metrics_come_by_epoch_and_without_what_tune_adds(
    result: SweepResult, runs: dict[str, Run], storage: Path
) -> None:
    best = runs[f"trial {result.best_trial.number}"]
    history = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}").get_metric_history(best.info.run_id, "hmean")
    assert [m.step for m in history] == list(range(1, result.best_trial.epochs + 1))
    names = set(best.data.metrics)
    assert {"lr", "loss.total", "loss.db.Student.shrink", "hmean.Student", "images_per_s", "time.step_s"} <= names
    assert not names & {"pid", "timestamp", "training_iteration", "time_total_s", "epoch", "done"}


def test_config_and_weights_are_artifacts(result: SweepResult, runs: dict[str, Run], storage: Path) -> None:
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    best = runs[f"trial {result.best_trial.number}"].info.run_id
    assert {a.path for a in client.list_artifacts(best)} == {"best", "config.yaml", "record.json", "images"}
    fetched = Path(client.download_artifacts(best, "config.yaml", str(storage)))
    assert load_config(fetched).loss.db.beta == result.best_trial.values["loss.db.beta"]
    weights = {a.path for a in client.list_artifacts(runs["first"].info.run_id, "best")}
    assert "best/student.safetensors" in weights
    assert "report.html" in {a.path for a in client.list_artifacts(runs["first"].info.run_id)}


def test_its_page_shows_the_winner_and_its_worst_pictures_beside_the_control(
    result: SweepResult, browser: Browser
) -> None:
    browser.open((result.folder / "report.html").as_uri())
    browser.wait_for("[...document.querySelectorAll('.plot')].every(p => p.querySelector('.main-svg'))")
    browser.screenshot("sweep-report")
    assert browser.complaints() == []
    said = str(browser.ask("document.querySelector('.headline').innerText"))
    assert f"{result.hmean:.4f}" in said
    assert browser.ask("document.querySelectorAll('#pictures img').length") in (4, 8)  # 4 pictures, by one net or two
    assert browser.ask("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


def test_mlflows_own_page_compares_the_trials(
    result: SweepResult, runs: dict[str, Run], storage: Path, browser: Browser
) -> None:
    trained = [runs[f"trial {t.number}"].info for t in result.trials if t.epochs]
    with mlflow_server(storage / "mlflow.db") as url:
        chosen = f"runs={quote(json.dumps([r.run_id for r in trained]))}"
        browser.open(f"{url}/#/compare-runs?{chosen}&experiments={quote(json.dumps([trained[0].experiment_id]))}")
        browser.wait_for(
            "document.body.innerText.includes('Comparing') && document.querySelector('.js-plotly-plot')", 60
        )
        browser.screenshot("mlflow-compare")
        shown = str(browser.ask("document.body.innerText"))
    assert f"Comparing {len(trained)} Runs" in shown
    assert "loss.db.beta" in shown


def test_what_a_trial_found_is_drawn_by_epoch(result: SweepResult, runs: dict[str, Run], storage: Path) -> None:
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    for trial in result.trials:
        run = runs[f"trial {trial.number}"]
        images = list(client.list_artifacts(run.info.run_id, "images"))
        if not trial.epochs:
            assert not images
            continue
        assert run.data.tags["mlflow.loggedImages"] == "True"
        steps = [int(image.path.split("+step+")[1].split("+")[0]) for image in images]
        assert steps.count(1) == steps.count(trial.epochs if trial.end == "finished" else 1) == 8  # 4, each twice
        assert sum(image.file_size for image in images) < 2e6


def test_runs_are_found_by_how_they_ended_and_what_they_trained_with(
    result: SweepResult, runs: dict[str, Run], storage: Path
) -> None:
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    early = [t for t in result.trials if t.end == "stopped early"]
    wanted = f"tags.stopped_early = 'true' and params.`loss.db.beta` = '{early[0].values['loss.db.beta']}'"
    (found,) = client.search_runs([runs["first"].info.experiment_id], f"{wanted} and metrics.rung >= 1")
    assert found.data.tags["reason"] == early[0].reason
    assert client.search_runs([found.info.experiment_id], wanted.replace("'true'", "'false'")) == []


def test_each_folder_holds_what_its_run_needs_to_be_run_again(result: SweepResult) -> None:
    of_sweep = RunRecord.from_json((result.folder / "record.json").read_text(), "sweep")
    for trial in result.trials:
        folder = result.folder / "train" / trial.trial_id
        record = RunRecord.from_json((folder / "record.json").read_text(), "trial")
        cfg = load_config(folder / "config.yaml")
        assert record == dataclasses.replace(of_sweep, config_digest=config_digest(cfg))
        assert cfg.optim.lr == trial.values["optim.lr"]


def test_a_name_that_is_taken_is_not_overwritten(labels: tuple[Path, Path], storage: Path, result: SweepResult) -> None:
    cfg = tiny(labels, storage)
    space = space_from_plain({"optim.lr": {"uniform": [1e-3, 1e-2]}}, cfg, "space")
    with pytest.raises(RunError, match="first: is there already"):
        sweep(cfg, space, name="first")
    with pytest.raises(RunError, match="no run to resume here"):
        sweep(cfg, space, name="second", resume=True)


def test_another_space_needs_another_name(result: SweepResult) -> None:
    cfg = load_config(result.folder / "config.yaml")
    wider = space_from_plain({**SPACE, "loss.db.beta": {"uniform": [1.0, 30.0]}}, cfg, "space")
    with pytest.raises(
        RunError, match=r"first: was started with loss.db.beta uniform \[1, 20\], now it is uniform \[1, 30"
    ):
        sweep(cfg, wider, name="first", resume=True)


def test_trials_that_can_never_be_placed_are_refused_before_any_starts(
    labels: tuple[Path, Path], tmp_path: Path
) -> None:
    cfg = tiny(labels, tmp_path, "ray.num_workers=3", "ray.cpus_per_worker=1000")
    space = space_from_plain({"optim.lr": {"uniform": [1e-3, 1e-2]}}, cfg, "space")
    with pytest.raises(ClusterError, match=r"no trial can ever be placed: it needs ray.num_workers=3 of 1000 CPU each"):
        sweep(cfg, space, name="huge")
    assert list(tmp_path.iterdir()) == []  # so that the name is still free


def test_a_budget_that_is_spent_lets_a_trial_end_its_epoch_and_starts_no_other(
    labels: tuple[Path, Path], storage: Path, result: SweepResult, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a sweep that sets out from what the first one has found."""
    limits = (
        "sweep.searcher=tpe",
        "sweep.max_device_hours=1e-6",
        "sweep.trials=3",
        "sweep.max_concurrent=1",
        "tracking.pictures=0",
        "sweep.default_first=false",  # a control would come to its end
        "sweep.confirm=1",
    )
    cfg = override(load_config(result.folder / "config.yaml"), limits)
    space = space_from_plain({**SPACE, "optim.lr": {"choice": [1e-2, STANDS_STILL]}}, cfg, "space")
    short = sweep(cfg, space, name="short", warm_start=["first"])
    (trial,) = short.trials
    assert (trial.end, trial.epochs) == ("stopped by budget", 1)
    assert trial.reason.startswith("sweep.max_device_hours=1e-06 are spent (")
    said = capsys.readouterr().err
    assert f"sweep: ended: {trial.reason}; 1 of 3 trials were started" in said
    runs = runs_of("short", storage)
    assert runs["short"].data.tags["ended"] == trial.reason
    assert runs["trial 1"].data.tags["stopped_early"] == "false"
    assert runs["trial 1"].data.tags["end"] == "stopped by budget"
    assert runs["trial 1"].data.tags["reason"] == trial.reason
    assert ", without the confirmation, for which the budget has no room, by " in runs["short"].data.tags["estimate"]
    assert short.confirmation is None
    skipped = runs["short"].data.tags["confirm.cut"]
    assert re.fullmatch(r"skipped: 6 runs would take .* --name short --resume sweep.max_device_hours=[\d.]+", skipped)
    assert f"confirm: {skipped}" in said
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    assert client.list_artifacts(runs["trial 1"].info.run_id, "images") == []
    finished = [t for t in result.trials if t.end == "finished"]
    assert [(t.values, t.hmean) for t in kept_warm(short.folder)] == [(t.values, t.hmean) for t in finished]
    assert runs["short"].data.tags["warm_start"] in said
    assert f"warm start: first: {len(finished)} of 4 trials taken" in said
    again = sweep(cfg, space, name="short", resume=True)
    assert again.trials == short.trials  # what is spent stays spent


def test_checkpoints_that_do_not_fit_the_disk_are_told_before_any_trial_starts(
    labels: tuple[Path, Path], tmp_path: Path
) -> None:
    cfg = tiny(labels, tmp_path, f"sweep.trials={10**12}")
    space = space_from_plain({"optim.lr": {"uniform": [1e-3, 1e-2]}}, cfg, "space")
    with pytest.raises(RunError, match=rf"{tmp_path}/vast: 1000000000000 trials may need .* TiB there"):
        sweep(cfg, space, name="vast")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # half a minute, which others need more
def test_too_many_failures_end_a_sweep_with_their_reasons_and_a_resume_goes_on_with_the_rest(
    labels: tuple[Path, Path], tmp_path: Path
) -> None:
    given = ("sweep.trials=2", "sweep.searcher=grid", "sweep.max_concurrent=1", "sweep.max_failed=0.4")
    cfg = tiny(labels, tmp_path, *given, "sweep.default_first=false", "optim.warmup_epochs=0")
    space = space_from_plain({"optim.lr": {"choice": [DIVERGES, 1e-2]}}, cfg, "space")
    told = "1 of 2 trials failed, more than sweep.max_failed=0.4 allows: trial 1: loss is not finite"
    with pytest.raises(RunError, match=f"bad: {told}"):
        sweep(cfg, space, name="bad")
    assert [run.info.status for run in runs_of("bad", tmp_path).values()] == ["FAILED"] * 2
    result = sweep(cfg, space, name="bad", resume=True)
    assert [(t.values["optim.lr"], t.end) for t in result.trials] == [(DIVERGES, "failed"), (1e-2, "finished")]
    assert {name: run.info.status for name, run in runs_of("bad", tmp_path).items()} == {
        "bad": "FINISHED",
        "trial 1": "FAILED",
        "trial 2": "FINISHED",
    }


class Watched(LiveFeed):
    """Says nothing. When so many runs of the confirmation are done, it does `then`."""

    def __init__(self, runs: int, then: Callable[[], object]) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.events: list[ProgressEvent] = []
        self.said: list[str] = []
        self._at, self._then = runs, then

    def say(self, text: str) -> None:
        self.said.append(text)

    def put(self, event: ProgressEvent) -> None:
        super().put(event)
        self.events.append(event)
        if event.phase == "done" and "seed" in event.run and len(self.of_phase("done")) == self._at:
            self._then()

    def of_phase(self, phase: str) -> set[str]:
        return {e.run for e in self.events if e.phase == phase and "seed" in e.run}


@pytest.fixture(scope="module")
def again(result: SweepResult, others: tuple[Path, Path]) -> tuple[SweepResult, Watched, Watched]:
    """The finished sweep taken up for a confirmation, which is stopped by Ctrl-C when one of its four runs is done, and
    taken up once more. The test set's pictures can be read when all four are done, and not before."""
    given = ["sweep.confirm=1", "sweep.seeds=2", f"data.test={others[1]}"]
    cfg = override(load_config(result.folder / "config.yaml"), given)
    space = space_from_plain(SPACE, cfg, "space")

    def mend() -> None:
        for hidden in others[1].parent.glob("val/*.hidden"):
            hidden.replace(hidden.with_suffix(".jpg"))

    first, second = Watched(1, lambda: signal.raise_signal(signal.SIGINT)), Watched(4, mend)
    with pytest.raises(KeyboardInterrupt):
        sweep(cfg, space, name="first", resume=True, live=first)
    return sweep(cfg, space, name="first", resume=True, live=second), first, second


def test_a_confirmation_holds_the_best_against_both_controls_with_the_same_seeds(
    again: tuple[SweepResult, Watched, Watched], result: SweepResult, storage: Path
) -> None:
    confirmed, _, _ = again
    assert confirmed.trials == result.trials
    found = confirmed.confirmation
    assert found is not None
    other = next(t for t in result.trials if t.hmean is not None and t.number != 1 and t.values["optim.lr"] == 1e-2)
    assert [f.arm.name for f in found.findings] == ["untouched start", "default config", f"trial {other.number}"]
    assert found.seeds == (1025, 1026)
    for finding in found.findings[1:]:
        for seed, file, hmean in zip(found.seeds, finding.arm.files, finding.hmeans, strict=True):
            said = json.loads(file.with_suffix(".json").read_text())
            assert said["config"]["run"]["seed"] == seed
            assert said["hmean"] == pytest.approx(hmean)
            assert [r["epoch"] for r in read_reports(file.parents[1])] == [1, 2, 3, 4, 5, 6]  # not ended early
            of_file = hmean_of(aligned([read_per_image(file.with_name("per_image.json"))])[0])
            assert of_file == pytest.approx(hmean)
    candidate = json.loads(found.findings[2].arm.files[0].with_suffix(".json").read_text())["config"]
    assert candidate["loss"]["db"]["beta"] == other.values["loss.db.beta"]
    assert confirmed.best == found.winner.file
    assert confirmed.hmean == found.winner.hmeans[found.winner.shipped]
    detector, card, _ = load_detector(found.findings[0].file)
    assert (card.origin.epoch, card.origin.source) == (0, str(storage / "start.safetensors"))
    start, _, _ = load_detector(storage / "start.safetensors")
    assert all((a == b).all() for a, b in zip(detector.parameters(), start.parameters(), strict=True))


def test_an_interrupted_confirmation_goes_on_with_what_is_missing(again: tuple[SweepResult, Watched, Watched]) -> None:
    _, first, second = again
    assert first.said[-1] == "sweep: stopped; `--name first --resume` goes on with it"
    done = first.of_phase("done")  # the other may have come to its end while its last epoch was waited for
    assert len(first.of_phase("starting")) == 2  # as many as there is room for, and none after Ctrl-C
    names = {run.partition(",")[0] for run in second.of_phase("done")}
    before = {f"{name}, seed {seed}" for name in names for seed in (1025, 1026)} - second.of_phase("starting")
    assert done
    assert before in (done, first.of_phase("starting"))
    assert "confirm first, 4 of 4 ended" in second.plain_line(clock=False)
    assert any(f"4 runs to their last epoch, {len(before)} of them done before" in line for line in second.said)


def test_the_parent_says_who_won_and_each_run_of_a_confirmation_is_there_once(
    again: tuple[SweepResult, Watched, Watched], storage: Path
) -> None:
    found = again[0].confirmation
    assert found is not None
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    (parent,) = [run for run in runs if run.info.run_name == "first"]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["winner"] == found.winner.arm.name
    assert parent.data.tags["confirm.answer"] == found.sentence
    hours = parent.data.metrics["confirm.device_hours"]
    assert {k: v for k, v in parent.data.metrics.items() if k.startswith("confirm.")} == {
        **found.metrics(),
        "confirm.device_hours": hours,
    }
    assert hours > 0
    of_trials = sum(trial.seconds for trial in again[0].trials) / 3600
    assert parent.data.metrics["device_hours"] == pytest.approx(of_trials + hours)
    assert "confirmation.json" in {a.path for a in client.list_artifacts(parent.info.run_id)}
    confirmed = [run for run in runs if run.data.tags.get("stage") == "confirm"]
    names = sorted(run.info.run_name for run in confirmed)
    arms = [f.arm.name for f in found.findings[1:]]
    assert names == sorted(f"confirm {arm}, seed {seed}" for arm in arms for seed in found.seeds)
    for run in confirmed:
        assert run.data.tags["end"] == "finished"
        assert run.data.tags["digest.data.train"] == parent.data.tags["digest.data.train"]
        assert run.data.tags["digest.data.keep"] == parent.data.tags["digest.data.keep"]
        assert [m.step for m in client.get_metric_history(run.info.run_id, "device_hours.epoch")] == [1, 2, 3, 4, 5, 6]
        kept = client.download_artifacts(run.info.run_id, "record.json", str(storage))
        record = RunRecord.from_json(Path(kept).read_text(), kept)
        assert (str(record.seed), record.config_digest) == (run.data.tags["seed"], run.data.tags["config_digest"])
        assert run.info.status == "FINISHED"
        assert run.data.tags[PARENT_TAG] == parent.info.run_id
        assert run.data.params["run.seed"] == run.data.tags["seed"]
        assert [m.step for m in client.get_metric_history(run.info.run_id, "hmean")] == [1, 2, 3, 4, 5, 6]
        assert "best/student.safetensors" in {a.path for a in client.list_artifacts(run.info.run_id, "best")}


def test_the_page_and_the_status_say_what_the_confirmation_found(again: tuple[SweepResult, Watched, Watched]) -> None:
    folder, found = again[0].folder, again[0].confirmation
    assert found is not None
    read = read_sweep(folder)
    assert read.confirmation is not None
    assert read.answer is not None
    assert (read.answer.name, read.answer.weights) == (found.winner.arm.name, found.winner.file)
    assert read.answer.hmean == pytest.approx(found.winner.mean)
    page = (folder / "report.html").read_text()
    assert 'id="confirmation"' in page
    assert headline(read).text in html.unescape(page)
    text = io.StringIO()
    Console(file=text, width=2000).print(details(standing(folder)))
    lines = text.getvalue().splitlines()
    assert f"confirmation: {found.sentence}" in lines
    (answer,) = [line for line in lines if line.startswith("answer: ")]
    assert answer.startswith(f"answer: hmean {again[0].hmean:.4f} ({found.winner.arm.name}")
    assert answer.endswith(f"  {found.winner.file}")
    start = next(arm for arm in read.confirmation.arms if not arm.is_trained)
    assert start.keep == json.loads((folder / "start.json").read_text())["keep.hmean.start"]
    assert read.confirm_hours == pytest.approx(read.confirmation.device_hours)
    assert read.confirming is not None
    assert (len(read.confirming.runs), read.confirming.open) == (4, ())


def test_the_old_domain_is_reported_for_every_trial(result: SweepResult, runs: dict[str, Run]) -> None:
    trained = [t for t in result.trials if t.epochs]
    for trial in trained:
        assert runs[f"trial {trial.number}"].data.metrics["keep.hmean.at_best"] == trial.keep
    assert any(trial.keep for trial in trained)
    text = io.StringIO()
    Console(file=text, width=200).print(result.table())
    assert "keep" in text.getvalue()


def test_the_test_set_is_looked_at_once_when_all_is_decided(
    again: tuple[SweepResult, Watched, Watched], others: tuple[Path, Path], storage: Path
) -> None:
    confirmed, first, second = again
    assert not [line for line in first.said if line.startswith("test:")]
    tested, found = confirmed.tested, confirmed.confirmation
    assert tested is not None
    assert found is not None
    told = [line for line in second.said if line.startswith("test:")]
    assert told[-1] == tested.one_line()
    assert told[-1].startswith(f"test: {found.winner.arm.name} hmean ")
    assert all("5 images" in line for line in told[1:-1])  # no picture was found to be none
    assert set(tested.hmeans) == set(found.files())
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    (parent,) = client.search_runs(
        [e.experiment_id for e in client.search_experiments()], "attributes.run_name = 'first'"
    )
    assert parent.data.metrics["test.hmean"] == tested.hmeans["winner"]
    records = {path: path.stat().st_mtime_ns for path in (confirmed.folder / "test").iterdir()}
    cfg = load_config(confirmed.folder / "config.yaml")
    once_more = evaluate_on_test(cfg, confirmed.folder, found.files(), second)
    assert once_more == tested
    assert {path: path.stat().st_mtime_ns for path in (confirmed.folder / "test").iterdir()} == records


def test_this_process_is_as_before(result: SweepResult) -> None:
    import signal

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert os.environ.get("RAY_ADDRESS") is None


@contextlib.contextmanager
def mlflow_server(database: Path) -> Iterator[str]:
    """`mlflow server` on this machine alone. Gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = subprocess.Popen(
        command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
