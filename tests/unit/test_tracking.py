"""MLflow's writer, against a real database."""

import json
import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ocr_ray.errors import ConfigError
from ocr_ray.mlflow_store import store_uri
from ocr_ray.tracking import PARENT_TAG, TrackedRun, Tracker
from ocr_ray.unsent import UNSENT_FILE, Opening, Said, UnsentRun, read_unsent, write_unsent
from tests.four_writers import nothing_is_lost, write_at_once


def tracker_in(folder: Path, said: list[str] | None = None) -> Tracker:
    say = said.append if said is not None else pytest.fail
    return Tracker(store_uri(None, folder), "ocr_ray", folder / "mlartifacts", folder / "ledger.json", say)


def run_of(folder: Path, run: TrackedRun) -> tuple[MlflowClient, str]:
    assert run.run_id is not None
    return MlflowClient(store_uri(None, folder)), run.run_id


@pytest.fixture(autouse=True)
def _no_server_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for the tests that only add runs; making its tables takes seconds."""
    return tmp_path_factory.mktemp("store")


def test_a_run_whose_id_was_not_noted_before_a_kill_is_found_again(tmp_path: Path) -> None:
    with tracker_in(tmp_path) as tracker:
        run = tracker.run("a", "trial 1")
    client, run_id = run_of(tmp_path, run)
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    (tmp_path / "ledger.json").write_text(json.dumps(ledger | {"runs": {}}))  # as it was just before
    with tracker_in(tmp_path) as tracker:
        again, other = tracker.run("a", "trial 1"), tracker.run("b", "trial 2")
    assert again.run_id == run_id
    assert other.run_id != run_id
    assert len(client.search_runs([e.experiment_id for e in client.search_experiments()])) == 2


def test_what_is_said_of_a_run_that_has_ended_is_left_out_where_that_is_asked_for(store: Path, tmp_path: Path) -> None:
    with Tracker(store_uri(None, store), "ocr_ray", store / "mlartifacts", tmp_path / "ledger.json") as tracker:
        ended, killed = tracker.run("ended", "trial 1"), tracker.run("killed", "trial 2")
        ended.tags({"end": "finished"})
        killed.end("KILLED")
    with Tracker(store_uri(None, store), "ocr_ray", store / "mlartifacts", tmp_path / "ledger.json") as tracker:
        for key in ("ended", "killed"):
            run = tracker.run(key, key, unless_ended=True)
            run.tags({"end": "again"})
            run.end("FINISHED")
    client, run_id = run_of(store, ended)
    assert client.get_run(run_id).data.tags["end"] == "finished"
    client, run_id = run_of(store, killed)
    assert client.get_run(run_id).data.tags["end"] == "again"
    assert client.get_run(run_id).info.status == "FINISHED"


def test_what_is_configured_wins_then_the_environment_then_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://a")
    assert store_uri(None, tmp_path) == "http://a"
    assert store_uri("http://b", tmp_path) == "http://b"


def test_a_report_becomes_params_and_metrics_by_epoch(store: Path) -> None:
    with tracker_in(store) as tracker:
        run = tracker.run("a", "trial 1")
        used = json.dumps({"loss.dml.weight": 2.31, "data.val": None, "optim.lr": 0.001})
        for epoch in (1, 2):
            run.report(
                {"epoch": epoch, "hmean": epoch / 10, "loss.dml": 1.0, "config": used, "best_path": "/x", "ok": True}
                | {"device": "CPU, AVX2, 1 threads"}
            )
    client, run_id = run_of(store, run)
    data = client.get_run(run_id).data
    assert data.params == {"loss.dml.weight": "2.31", "data.val": "None", "optim.lr": "0.001"}
    assert set(data.metrics) == {"hmean", "loss.dml"}
    assert data.tags["device"] == "CPU, AVX2, 1 threads"
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "hmean")] == [(1, 0.1), (2, 0.2)]
    assert client.get_run(run_id).info.status == "FINISHED"


def test_figures_of_the_whole_run_are_written_whatever_epoch_it_has_come_to(store: Path) -> None:
    with tracker_in(store) as tracker:
        run = tracker.run("finals", "finals")
        run.metrics({"hmean": 0.5}, step=7)
        run.finals({"test.hmean": 0.4})
    with tracker_in(store) as tracker:  # a resume may find others
        run = tracker.run("finals", "finals")
        run.finals({"test.hmean": 0.3})
    client, run_id = run_of(store, run)
    assert client.get_run(run_id).data.metrics == {"hmean": 0.5, "test.hmean": 0.3}


def test_a_run_that_took_another_way_from_an_earlier_epoch_writes_that_way(store: Path) -> None:
    with tracker_in(store) as tracker:
        run = tracker.run("heir", "heir")
        for epoch, hmean in ((1, 0.1), (2, 0.2), (3, 0.3)):
            run.report({"epoch": epoch, "hmean": hmean})
        run.back_to(1)
        for epoch, hmean in ((2, 0.6), (3, 0.7), (3, 0.9)):
            run.report({"epoch": epoch, "hmean": hmean})
    client, run_id = run_of(store, run)
    assert {point.step: point.value for point in client.get_metric_history(run_id, "hmean")} == {1: 0.1, 2: 0.6, 3: 0.7}


def test_children_know_their_parent_and_artifacts_lie_beside_the_database(store: Path, tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "student.safetensors").write_bytes(b"weights")
    with tracker_in(store) as tracker:
        parent = tracker.run("p", "sweep")
        child = tracker.run("c", "trial 1", parent, {"trial_id": "c"})
        child.artifact(tmp_path / "best", "best")
        child.text("optim:\n  lr: 0.1\n", "config.yaml")
        child.tags({"stopped_early": "true"})
    client, run_id = run_of(store, child)
    tags = client.get_run(run_id).data.tags
    assert tags[PARENT_TAG] == parent.run_id
    assert (tags["trial_id"], tags["stopped_early"], tags["mlflow.runName"]) == ("c", "true", "trial 1")
    assert {a.path for a in client.list_artifacts(run_id)} == {"best", "config.yaml"}
    kept = store / "mlartifacts" / run_id / "artifacts" / "best" / "student.safetensors"
    assert kept.read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED"), (OSError, "FAILED")],
)
def test_open_runs_get_the_status_of_the_end(store: Path, error: type[BaseException] | None, status: str) -> None:
    ended = running = None
    try:
        with tracker_in(store) as tracker:
            ended, running = tracker.run(f"e{status}{error}", "ended"), tracker.run(f"r{status}{error}", "running")
            ended.end("FINISHED")
            ended.end("FAILED")  # the first word stands
            if error is not None:
                raise error
    except (KeyboardInterrupt, SystemExit, OSError):
        pass
    assert ended is not None
    assert running is not None
    client, run_id = run_of(store, ended)
    assert client.get_run(run_id).info.status == "FINISHED"
    assert client.get_run(run_of(store, running)[1]).info.status == status


def test_a_later_process_goes_on_with_the_same_runs_and_says_no_epoch_twice(tmp_path: Path) -> None:
    with tracker_in(tmp_path) as tracker:
        run = tracker.run("a", "trial 1")
        run.report({"epoch": 1, "hmean": 0.1, "config": '{"optim.lr": 0.1}'})
        run.report({"epoch": 2, "hmean": 0.2})
        run.end("KILLED")
    with tracker_in(tmp_path) as tracker:
        again = tracker.run("a", "trial 1")
        again.report({"epoch": 2, "hmean": 0.9, "config": '{"optim.lr": 0.1}'})
        again.report({"epoch": 3, "hmean": 0.3})
    assert again.run_id == run.run_id
    client, run_id = run_of(tmp_path, again)
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "hmean")] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert client.get_run(run_id).info.status == "FINISHED"


def test_more_params_than_a_batch_takes_and_longer_ones_than_a_row(store: Path) -> None:
    with tracker_in(store) as tracker:
        run = tracker.run("many", "many")
        run.params({f"key.{i}": i for i in range(250)} | {"long": "x" * 10_000})
    client, run_id = run_of(store, run)
    params = client.get_run(run_id).data.params
    assert len(params) == 251
    assert params["long"] == "x" * 6000


def test_numbers_that_are_not_finite_are_written_as_such(store: Path) -> None:
    with tracker_in(store) as tracker:
        run = tracker.run("nan", "nan")
        run.report({"epoch": 1, "hmean": float("nan"), "loss.total": float("inf"), "lr": 0.1})
    client, run_id = run_of(store, run)
    assert client.get_metric_history(run_id, "lr")[0].value == 0.1
    assert client.get_metric_history(run_id, "loss.total")[0].value > 1e300


def test_a_write_that_is_refused_is_said_and_does_not_hold_up_the_next(store: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with tracker_in(store, said) as tracker:
        run = tracker.run("refused", "refused")
        run.params({"optim.lr": 1})
        run.params({"optim.lr": 2})  # MLflow's params never change
        run.artifact(tmp_path / "gone.txt")
        run.metrics({"hmean": 0.5}, 1)
    assert len(said) == 2
    assert said[0].startswith("tracking: refused: parameters refused: ")
    assert "gone.txt" in said[1]
    client, run_id = run_of(store, run)
    assert client.get_metric_history(run_id, "hmean")[0].value == 0.5


def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    import sqlite3

    said: list[str] = []
    with tracker_in(tmp_path, said) as tracker:
        run = tracker.run("a", "a")
        run.metrics({"hmean": 0.1}, 1)
        while run.run_id is None:
            time.sleep(0.01)
        lock = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None, check_same_thread=False)
        lock.execute("BEGIN EXCLUSIVE")
        before = time.monotonic()
        run.metrics({"hmean": 0.2}, 2)
        assert time.monotonic() - before < 4  # the caller does not wait
        threading.Timer(5.0, lambda: (lock.execute("COMMIT"), lock.close())).start()
    client, run_id = run_of(tmp_path, run)
    assert [m.value for m in client.get_metric_history(run_id, "hmean")] == [0.1, 0.2]


def test_a_server_that_is_away_costs_one_line_and_no_time() -> None:
    said: list[str] = []
    before = time.monotonic()
    with Tracker("http://127.0.0.1:9", "ocr_ray", say=said.append) as tracker:
        run = tracker.run("a", "a")
        for epoch in range(20):
            run.report({"epoch": epoch, "hmean": 0.1})
        tracker.close(wait_s=0.5)
        assert time.monotonic() - before < 60  # mlflow's own import included; 22 refused records alone would take more
    assert [line.split(":")[0] for line in said] == ["tracking", "tracking"]
    assert "does not answer, training goes on" in said[0]
    assert said[1] == "tracking: 22 records could not be written to http://127.0.0.1:9"


def test_what_a_server_that_stays_away_has_not_taken_is_kept_whole_until_it_does(tmp_path: Path) -> None:
    uri, kept = "http://127.0.0.1:9", tmp_path / UNSENT_FILE
    said: list[str] = []

    def attempt(epoch: int) -> Tracker:
        tracker = Tracker(uri, "ocr_ray", ledger=tmp_path / "ledger.json", say=said.append)
        parent = tracker.run("p", "sweep", tags={"recipe": "cml"})
        run = tracker.run("a", "trial 1", parent, unless_ended=epoch > 1)
        run.report({"epoch": epoch, "hmean": float("inf"), "config": '{"optim.lr": 0.1}', "val.images": ["x.jpg"]})
        run.back_to(0)
        run.finals({"test.hmean": 0.5})
        run.artifact(tmp_path / "best", "best")
        run.text("text", "config.yaml")
        run.end("FINISHED")
        tracker.close("KILLED", wait_s=0.2)
        return tracker

    attempt(1)
    assert (
        said[-1]
        == f"tracking: 11 records could not be written to {uri}; they are kept in {kept}, and --resume writes them"
    )
    first = read_unsent(kept, uri)
    assert [(run.key, run.opening.parent, run.status) for run in first] == [
        ("p", None, "KILLED"),
        ("a", "p", "FINISHED"),
    ]
    by = ["params", "images", "metrics", "back_to", "finals", "artifact", "text"]
    assert [s.by for s in first[1].said] == by
    assert read_unsent(kept, "http://elsewhere") == ()
    attempt(2)
    second = read_unsent(kept, uri)
    assert second[:2] == first  # as they were said, with their times
    assert [(run.key, len(run.said), run.opening.unless_ended) for run in second[2:]] == [
        ("p", 0, False),
        ("a", 7, True),
    ]


def test_what_was_kept_is_written_once_when_the_store_is_there_again(tmp_path: Path) -> None:
    uri, kept = store_uri(None, tmp_path), tmp_path / UNSENT_FILE
    said: list[str] = []
    with tracker_in(tmp_path) as tracker:
        parent = tracker.run("p", "sweep")
        old = tracker.run("a", "trial 1", parent)
        old.report({"epoch": 1, "hmean": 0.1, "config": '{"optim.lr": 0.1}'})
    metric = {"by": "metrics", "given": {"metrics": {"hmean": 0.2}, "step": 2, "at_ms": 4_000_000_000_000}}
    again = {"by": "metrics", "given": {"metrics": {"hmean": 0.9}, "step": 1, "at_ms": 3_000_000_000_000}}
    runs = [
        UnsentRun(key, Opening(key, "p", {}, False, 500), (Said(**again), Said(**metric)), "FINISHED", 2000)  # type: ignore[arg-type]
        for key in ("a", "b")
    ]
    write_unsent(kept, uri, runs)
    with tracker_in(tmp_path, said) as tracker:
        later = tracker.run("b", "trial 2", tracker.run("p", "sweep"), unless_ended=True)
        later.tags({"end": "of a resume"})
    assert said == [f"tracking: what could not be written before is written now ({UNSENT_FILE})"]
    assert not kept.exists()
    client, run_id = run_of(tmp_path, old)
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "hmean")] == [(1, 0.1), (2, 0.2)]
    (made,) = client.search_runs(["1"], "attributes.run_name = 'b'")
    assert made.data.tags[PARENT_TAG] == parent.run_id
    assert "end" not in made.data.tags
    assert (made.info.status, made.info.start_time, made.info.end_time) == ("FINISHED", 500, 2000)
    told = [(m.step, m.timestamp) for m in client.get_metric_history(made.info.run_id, "hmean")]
    assert told == [(1, 3_000_000_000_000), (2, 4_000_000_000_000)]  # when it was said


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://x", "tracking.uri: ftp://x: .*unsupported URI"),
        ("/proc/nothing/here", "tracking.uri: /proc/nothing/here: "),
        ("sqlite:////proc/nothing/mlflow.db", "tracking.uri: sqlite:////proc/nothing/mlflow.db: "),
    ],
)
def test_a_store_that_cannot_be_is_the_users_mistake(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Tracker(uri, "ocr_ray")
    assert "\n" not in str(caught.value)


def test_a_deleted_experiment_is_named(store: Path) -> None:
    client = MlflowClient(store_uri(None, store))
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(ConfigError, match=r"tracking\.experiment: gone was deleted"):
        Tracker(store_uri(None, store), "gone")


def test_a_ledger_of_another_store_is_not_followed(store: Path, tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text(json.dumps({"uri": "http://elsewhere", "runs": {"a": "0" * 32}}))
    with Tracker(store_uri(None, store), "ocr_ray", ledger=tmp_path / "ledger.json", say=pytest.fail) as tracker:
        run = tracker.run("a", "a")
    assert run.run_id != "0" * 32


def test_four_sweeps_at_once_on_one_new_database_lose_nothing_and_mlflow_says_nothing(tmp_path: Path) -> None:
    uri = store_uri(None, tmp_path)
    lines = write_at_once(tmp_path, uri)
    # One that finds the database busy may say that it waits for it, and then that it need not any more.
    assert [line for line in lines if "does not answer" not in line and "answers again" not in line] == []
    nothing_is_lost(uri)


def test_images_of_an_epoch_that_was_written_are_not_written_again(store: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.jpg").write_bytes(b"picture")
    with tracker_in(store) as tracker:
        run = tracker.run("images", "images")
        run.report({"epoch": 1, "hmean": 0.1, "val.images": [str(tmp_path / "one.jpg")]})
        run.report({"epoch": 1, "hmean": 0.1, "val.images": [str(tmp_path / "two.jpg")]})
    client, run_id = run_of(store, run)
    assert [a.path for a in client.list_artifacts(run_id, "images")] == ["images/one.jpg"]
    assert client.get_run(run_id).data.tags["mlflow.loggedImages"] == "True"


def test_the_line_to_look_at_the_runs_names_the_store(store: Path) -> None:
    with tracker_in(store) as tracker:
        assert tracker.ui_line.endswith(f"mlflow ui --backend-store-uri sqlite:///{store}/mlflow.db")
