"""A real tracking server that goes away in the middle and comes back."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ocr_ray.registry.log import register
from ocr_ray.registry.store import Registry
from ocr_ray.tracking import LEDGER_FILE, Tracker
from ocr_ray.unsent import UNSENT_FILE
from tests.bright import write_detector
from tests.tracking_server import free_port, tracking_server


def server(folder: Path, port: int) -> contextlib.AbstractContextManager[None]:
    return tracking_server(folder, port, f"sqlite:///{folder}/server.db")


def open_at_once(uri: str) -> set[str | None]:
    """The ids of a new experiment, as four drivers find or make it that come at the same moment."""
    gate = threading.Barrier(4)

    def open_one(_: int) -> str | None:
        gate.wait()
        with Tracker(uri, "of four", say=pytest.fail) as tracker:
            return tracker._experiment_id

    with ThreadPoolExecutor(4) as pool:
        return set(pool.map(open_one, range(4)))


def same_experiment(client: MlflowClient) -> str:
    found = client.get_experiment_by_name("ocr_ray")
    assert found is not None
    return str(found.experiment_id)


def registered_and_crowned(uri: str, run_id: str, folder: Path) -> None:
    """A server's registry takes a model, and gives back the file that it was given."""
    onnx = write_detector(folder / "bright.onnx", 0.4)
    made = register(onnx, uri, run_id=run_id)
    registry = Registry(uri)
    version = registry.version(made.name)
    assert (made.run_id, version.number) == (run_id, 1)
    assert registry.champion(made.name) is None
    registry.tag(version, {"promotion": "promoted"}, prefix="promotion")
    registry.crown(version)
    champion = registry.champion(made.name)
    assert champion is not None
    assert champion.tags["promotion"] == "promoted"
    assert registry.fetch(champion, folder / "fetched").read_bytes() == onnx.read_bytes()


def test_what_was_said_while_the_server_was_away_is_written_when_it_is_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    (tmp_path / "student.safetensors").write_bytes(b"weights")
    said: list[str] = []
    of_ended: list[str] = []
    with contextlib.ExitStack() as stack:
        with server(tmp_path, port):
            (same,) = open_at_once(uri)
            assert same is not None
            tracker = stack.enter_context(Tracker(uri, "ocr_ray", tmp_path / "unused", say=said.append))
            parent = tracker.run("p", "sweep")
            run = tracker.run("a", "trial 1", parent)
            run.report({"epoch": 1, "hmean": 0.1, "config": '{"optim.lr": 0.001}'})
            while run._step < 1:
                time.sleep(0.05)
            ended = Tracker(uri, "ocr_ray", ledger=tmp_path / LEDGER_FILE, say=of_ended.append)
            swept = ended.run("s", "sweep that ends meanwhile")
            trained = ended.run("t", "trial 1", swept)
            trained.report({"epoch": 1, "hmean": 0.1, "config": '{"optim.lr": 0.001}'})
            while trained._step < 1:
                time.sleep(0.05)
        for epoch in range(2, 9):
            trained.report({"epoch": epoch, "hmean": epoch / 100})
        trained.end("FINISHED")
        begun = ended.run("u", "trial 2", swept)
        begun.report({"epoch": 1, "hmean": 0.7, "config": '{"optim.lr": 0.002}'})
        begun.artifact(tmp_path / "student.safetensors", "best")
        swept.finals({"hmean.best": 0.7})
        ended.close(wait_s=0.5)
        assert of_ended[-1].endswith(f"; they are kept in {tmp_path / UNSENT_FILE}, and --resume writes them")
        before = time.monotonic()
        for epoch in range(2, 30):
            run.report({"epoch": epoch, "hmean": epoch / 100})
        late = tracker.run("b", "trial 2", parent)  # started while there is no one to ask for an id
        late.report({"epoch": 1, "hmean": 0.5, "config": '{"optim.lr": 0.002}'})
        run.artifact(tmp_path / "student.safetensors", "best")
        assert time.monotonic() - before < 15  # 30 refused records would take more; training does not wait
        while not said:
            time.sleep(0.05)
        with server(tmp_path, port):
            tracker.close(wait_s=60)
            client = MlflowClient(uri)
            assert run.run_id is not None
            assert late.run_id is not None
            steps = [m.step for m in client.get_metric_history(run.run_id, "hmean")]
            assert steps == [1, *range(2, 30)]
            assert client.get_run(late.run_id).data.params == {"optim.lr": "0.002"}
            assert client.get_run(late.run_id).data.tags["mlflow.parentRunId"] == parent.run_id
            assert [f.path for f in client.list_artifacts(run.run_id, "best")] == ["best/student.safetensors"]
            assert {client.get_run(i).info.status for i in (run.run_id, late.run_id)} == {"FINISHED"}
            with Tracker(uri, "ocr_ray", ledger=tmp_path / LEDGER_FILE, say=of_ended.append) as resumed:
                other = resumed.run("u", "trial 2", unless_ended=True)
                other.tags({"end": "said by a resume of what has ended"})
            assert not (tmp_path / UNSENT_FILE).exists()
            assert trained.run_id is not None
            assert [m.step for m in client.get_metric_history(trained.run_id, "hmean")] == list(range(1, 9))
            late_of = client.search_runs(
                [same_experiment(client)], "attributes.run_name = 'trial 2' and metrics.hmean = 0.7"
            )
            (written,) = late_of
            assert (written.data.params, written.info.status) == ({"optim.lr": "0.002"}, "FINISHED")
            assert written.data.tags["mlflow.parentRunId"] == swept.run_id
            assert "end" not in written.data.tags
            assert [f.path for f in client.list_artifacts(written.info.run_id, "best")] == ["best/student.safetensors"]
            assert swept.run_id is not None
            assert client.get_run(swept.run_id).data.metrics == {"hmean.best": 0.7}
            assert {client.get_run(i).info.status for i in (swept.run_id, trained.run_id)} == {"FINISHED"}
            registered_and_crowned(uri, run.run_id, tmp_path)
    assert capsys.readouterr().out == ""  # it belongs to results
    assert [line.split(",")[0].split(": ")[-1] for line in said] == [
        f"{uri} does not answer",
        "the store answers again",
    ]
