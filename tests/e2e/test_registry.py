"""A detector in a real MLflow store: logged without a pickle, registered, promoted past the gate, and served."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from ocr_ray.cli import app
from ocr_ray.data.images import read_image
from ocr_ray.data.resize import resize_for_test
from ocr_ray.engine.evaluate import shrink_maps
from ocr_ray.errors import RunError
from ocr_ray.export.write import export
from ocr_ray.files import file_digest
from ocr_ray.model_card import load_for_use
from ocr_ray.postprocess import boxes_from_map
from ocr_ray.registry.log import Registered, register, register_or_say
from tests.bright import CARD, write_detector, write_pictures
from tests.tracking_server import free_port

NAME = "text-detector"
SHARED = Path(__file__).resolve().parents[3] / "shared"


class Store:
    """A database with two versions: 1 sees bright text alone, 2 sees dim text as well."""

    def __init__(self, folder: Path) -> None:
        self.uri = f"sqlite:///{folder}/store/mlflow.db"
        self.labels = write_pictures(folder / "set", 24)
        self.files = [write_detector(folder / f"{name}.onnx", limit) for name, limit in (("half", 0.8), ("all", 0.4))]
        self.versions: list[Registered] = [register(file, self.uri) for file in self.files]
        self.client = MlflowClient(self.uri, registry_uri=self.uri)

    def model_folder(self, version: int) -> Path:
        where = self.client.get_model_version_download_uri(NAME, str(version))
        return Path(where.removeprefix("file://"))

    def tags(self, version: int) -> dict[str, str]:
        return dict(self.client.get_model_version(NAME, str(version)).tags)

    def champion(self) -> int:
        """0 where there is none."""
        return int(self.client.get_registered_model(NAME).aliases.get("champion", 0))

    def promote(self, *arguments: str) -> Result:
        # Latency is another test's: with 24 small pictures it is noise.
        fixed = ["--val", str(self.labels), "--tracking", self.uri, "--most-ms", "10000"]
        return CliRunner().invoke(app, ["promote", NAME, *arguments, *fixed])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("registry"))


def test_nothing_in_a_logged_model_is_a_pickle(store: Store) -> None:
    files = [path for path in store.model_folder(1).rglob("*") if path.is_file()]
    names = {path.relative_to(store.model_folder(1)).as_posix() for path in files}
    assert {"MLmodel", "model_code.py", "artifacts/detector.onnx", "code/ocr_ray/registry/reader.py"} <= names
    assert {path.suffix for path in files} <= {"", ".py", ".onnx", ".json", ".yaml", ".txt", ".jinja"}
    assert [path for path in files if path.read_bytes()[:1] == b"\x80"] == []  # as pickles begin
    assert "python_model" not in (store.model_folder(1) / "MLmodel").read_text()  # where MLflow names a pickle
    assert "torch" not in (store.model_folder(1) / "requirements.txt").read_text()


def test_a_version_says_where_it_comes_from(store: Store) -> None:
    tags = store.tags(1)
    assert tags["file_digest"] == file_digest(store.files[0])
    assert (tags["hmean"], tags["recipe"], tags["run"], tags["config_digest"]) == ("0.7500", "cml", "a sweep", "c0ffee")
    assert json.loads(tags["resize"])["limit_type"] == "max"
    run = store.client.get_run(store.versions[0].run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "a sweep")
    assert [output.model_id for output in run.outputs.model_outputs] != []


def test_a_file_is_registered_once_and_to_the_run_that_made_it(store: Store, tmp_path: Path) -> None:
    assert register(store.files[0], store.uri) == store.versions[0]
    run_id = store.versions[1].run_id
    origin = replace(CARD.origin, run_id=run_id)
    named = write_detector(tmp_path / "named.onnx", 0.5, replace(CARD, origin=origin))
    assert register(named, store.uri, "another").run_id == run_id
    with pytest.raises(RunError, match="another: cannot be registered in sqlite"):
        register(write_detector(tmp_path / "lost.onnx", 0.6), store.uri, "another", run_id="0" * 32)


def test_a_store_that_is_away_sinks_nobody(store: Store) -> None:
    said: list[str] = []
    uri = f"http://127.0.0.1:{free_port()}"
    assert register_or_say(store.files[0], uri, said.append) is None
    assert len(said) == 1
    assert said[0].endswith(f"later: ocr-ray register {store.files[0]} --name {NAME} --tracking {uri}")


def test_only_what_is_better_becomes_the_champion(store: Store) -> None:
    assert store.promote("1", "--dry-run").exit_code == 0
    assert store.champion() == 0
    assert "promotion" not in store.tags(1)

    assert store.promote("1").exit_code == 0
    assert store.champion() == 1
    assert store.tags(1)["promotion.hmean"] == "0.6667"

    better = store.promote()  # the latest
    assert better.exit_code == 0, better.output
    assert store.champion() == 2
    assert store.tags(2)["promotion"] == "promoted"
    assert store.tags(2)["promotion.hmean.difference"] == "+.3333 (+.3333 to +.3333)"

    worse = store.promote("1")
    assert worse.exit_code == 1
    assert "refused: hmean: 0.6667, -.3333" in worse.output
    assert store.champion() == 2
    tags = store.tags(1)
    assert (tags["promotion"], tags["promotion.over"], tags["promotion.hmean.champion"]) == ("refused", "2", "1.0000")
    assert store.promote("2").exit_code == 1  # said by an exception, which `main` turns into a line


class Served:
    """A model behind `mlflow models serve`, a process of its own."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"

    def wait(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"{self._address}/ping", timeout=5).close()
                return
            except OSError:
                time.sleep(0.2)
        pytest.fail(log.read_text())

    def ask(self, *pictures: object) -> Any:
        body = json.dumps({"inputs": pictures}).encode()
        request = urllib.request.Request(f"{self._address}/invocations", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["predictions"]


@pytest.fixture(scope="module")
def net_and_picture(store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The released student and a photograph; where they are not there, what stands in for them."""
    golden = Path(os.environ.get("OCR_RAY_GOLDEN", SHARED / "golden")) / "ppocrv3_det_student_real.npz"
    photograph = Path(os.environ.get("OCR_RAY_DATA", SHARED / "data")) / "icdar2015" / "val" / "img_10.jpg"
    if not (golden.exists() and photograph.exists()):
        return store.files[1], store.labels.parent / "0.png"
    return export(golden, tmp_path_factory.mktemp("real") / "student.onnx").path, photograph


def detections(onnx: Path, picture: Path) -> tuple[list[Any], list[float]]:
    """As `ocr-ray predict` finds them."""
    detector, card, _ = load_for_use(onnx)
    image = read_image(picture)
    resized, _ = resize_for_test(image, card.resize)
    probability = shrink_maps(detector, [resized], card.normalize, torch.device("cpu"))[0]
    found = boxes_from_map(probability, card.postprocess, image.shape[1], image.shape[0])
    return [d.polygon.tolist() for d in found], [d.score for d in found]


@pytest.fixture(scope="module")
def served(
    store: Store, net_and_picture: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder, port = tmp_path_factory.mktemp("served"), free_port()
    version = register(net_and_picture[0], store.uri, "served")
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/served/{version.version}"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    env = {**os.environ, "MLFLOW_TRACKING_URI": store.uri, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"  # where it looks for uvicorn
    log = folder / "log"
    with log.open("w") as written:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=written, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        model = Served(port)
        model.wait(process, log)
        yield model
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def test_a_served_model_finds_what_predict_finds(served: Served, net_and_picture: tuple[Path, Path]) -> None:
    onnx, picture = net_and_picture
    text = base64.b64encode(picture.read_bytes()).decode()
    image = cv2.imread(str(picture))
    assert image is not None
    polygons, scores = detections(onnx, picture)
    assert polygons
    for found in served.ask(text, image.tolist()):
        assert found["polygons"] == polygons
        assert found["scores"] == pytest.approx(scores, abs=1e-4)
    with pytest.raises(urllib.error.HTTPError) as refused:
        served.ask(text, "no picture")
    assert refused.value.code == 400
    assert "picture 2 of 2: a text that is no base64" in refused.value.read().decode()
