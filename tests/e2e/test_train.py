"""`train` with real Ray and a real MLflow database, on pictures so small that a run takes seconds."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from rich.console import Console

from ocr_ray.config import RecipeConfig, load_config, override
from ocr_ray.errors import ClusterError, ConfigError, DataError, RunError
from ocr_ray.predict import evaluate_file
from ocr_ray.progress import LiveFeed, ProgressEvent
from ocr_ray.session import connected
from ocr_ray.settings import ClusterConfig
from ocr_ray.train import TrainResult, train
from ocr_ray.typed import flatten


class Watched(LiveFeed):
    """Keeps the events, and says nothing. At the first one inside the epoch after `epoch`, it does `then`."""

    def __init__(self, epoch: int = -1, then: Callable[[], object] = lambda: None) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.events: list[ProgressEvent] = []
        self._epoch, self._then, self._done = epoch, then, False

    def put(self, event: ProgressEvent) -> None:
        self.events.append(event)
        if event.epoch == self._epoch and event.step and not self._done:
            self._done = True
            self._then()


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connected(ClusterConfig(address="local")):
        yield


@pytest.fixture(scope="module")
def cfg(tiny: list[str], cluster: None, tmp_path_factory: pytest.TempPathFactory) -> RecipeConfig:
    storage = tmp_path_factory.mktemp("train") / "runs"
    test = tiny[2].replace("data.val", "data.test")
    return load_config(Path(tiny[0]), [*tiny[1:], f"ray.storage={storage}", test])


@pytest.fixture(scope="module")
def plain(cfg: RecipeConfig) -> TrainResult:
    return train(cfg, "plain", live=Watched())


def client_of(cfg: RecipeConfig) -> MlflowClient:
    return MlflowClient(f"sqlite:///{cfg.ray.storage}/mlflow.db")


def run_of(cfg: RecipeConfig, name: str) -> Run:
    """The one MLflow run of that name."""
    client = client_of(cfg)
    experiment = client.get_experiment_by_name("ocr_ray")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    return run


def history(cfg: RecipeConfig, run: Run, metric: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client_of(cfg).get_metric_history(run.info.run_id, metric)]


def test_the_file_gives_the_figure_that_the_run_reports(plain: TrainResult, small_set: Path) -> None:
    assert plain.epochs == 5
    assert plain.hmean > 0.1  # it has learned something
    of_file = evaluate_file(plain.best, small_set / "val_label.txt", progress=False)
    assert of_file.score.hmean == plain.hmean
    assert json.loads(plain.best.with_suffix(".json").read_text())["hmean"] == plain.hmean


def test_a_worker_of_ray_trains_as_a_plain_loop_does(
    plain: TrainResult, cfg: RecipeConfig, bare_losses: list[float]
) -> None:
    assert history(cfg, run_of(cfg, "plain"), "loss.total") == list(enumerate(bare_losses, start=1))


def test_mlflow_holds_what_the_worker_used_and_what_it_reached(plain: TrainResult, cfg: RecipeConfig) -> None:
    run = run_of(cfg, "plain")
    assert run.info.status == "FINISHED"
    as_sent = json.loads(json.dumps(flatten(cfg)))  # which makes lists of tuples
    assert run.data.params == {key: str(value) for key, value in as_sent.items()}
    hmeans = history(cfg, run, "hmean")
    assert [step for step, _ in hmeans] == [1, 2, 3, 4, 5]
    assert max(hmean for _, hmean in hmeans) == plain.hmean
    artifacts = {a.path for folder in (None, "best") for a in client_of(cfg).list_artifacts(run.info.run_id, folder)}
    assert {"config.yaml", "record.json", "images", "best/student.safetensors", "best/student.json"} <= artifacts
    assert 0 < run.data.metrics["device_hours.epoch"] < run.data.metrics["device_hours"]
    assert run.data.tags["device"].startswith("CPU, ")
    assert run.data.tags["code.version"]


def test_the_test_set_is_evaluated_at_the_end(plain: TrainResult, cfg: RecipeConfig) -> None:
    """Here it is val itself."""
    ((step, hmean),) = history(cfg, run_of(cfg, "plain"), "test.hmean")
    assert (step, hmean) == (0, pytest.approx(plain.hmean))  # 2PR/(P+R), and the same from counts
    (record,) = (plain.folder / "test").iterdir()
    counts = json.loads(record.read_text())
    per_image = json.loads(plain.best.with_name("per_image.json").read_text())
    assert [counts[key] for key in ("name", "matched", "detected")] == [
        per_image[key] for key in ("name", "matched", "detected")
    ]


def test_a_run_that_has_ended_gives_its_result_again(plain: TrainResult, cfg: RecipeConfig) -> None:
    live = Watched()
    assert train(cfg, "plain", resume=True, live=live) == plain
    assert not [e for e in live.events if e.phase == "training"]  # no worker was started for it
    assert run_of(cfg, "plain").info.status == "FINISHED"


def test_a_name_is_used_once_and_resumed_as_it_was(plain: TrainResult, cfg: RecipeConfig) -> None:
    with pytest.raises(RunError, match=r"plain: is there already: add --resume to go on with it"):
        train(cfg, "plain", live=Watched())
    with pytest.raises(RunError, match=r"plain: was started with optim\.lr=0\.01, now it is 0\.02"):
        train(override(cfg, ["optim.lr=0.02"]), "plain", resume=True, live=Watched())
    with pytest.raises(RunError, match=r"never: no run to resume here"):
        train(cfg, "never", resume=True, live=Watched())


def test_what_can_never_be_placed_is_refused_before_anything_is_written(cfg: RecipeConfig) -> None:
    with pytest.raises(ClusterError, match=r"ray\.num_workers=2 of 1000 CPU each can never be placed"):
        train(override(cfg, ["ray.num_workers=2", "ray.cpus_per_worker=1000"]), "wide", live=Watched())
    assert not (Path(cfg.ray.storage) / "wide").exists()


def test_a_store_that_cannot_be_leaves_the_name_free(cfg: RecipeConfig) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.uri: foo://bar"):
        train(override(cfg, ["tracking.uri=foo://bar"]), "elsewhere", live=Watched())
    assert not (Path(cfg.ray.storage) / "elsewhere").exists()


def test_pictures_that_are_not_there_are_told_before_anything_starts(cfg: RecipeConfig, tmp_path: Path) -> None:
    elsewhere = override(cfg, [f"data.root={tmp_path}"])
    with pytest.raises(DataError, match=r"data\.train: 12 of 12 pictures cannot be read, .*\(data\.root\)\?"):
        train(elsewhere, "lost", live=Watched())
    assert not (Path(cfg.ray.storage) / "lost").exists()


def test_two_workers_train_one_net(cfg: RecipeConfig, small_set: Path) -> None:
    settings = ["ray.num_workers=2", "data.batch_size=1", "data.on_device=true"]
    result = train(override(cfg, settings), "two", live=Watched())
    run = run_of(cfg, "two")
    assert run.info.status == "FINISHED"
    losses = [loss for _, loss in history(cfg, run, "loss.total")]
    assert losses[-1] < 0.8 * losses[0]
    assert [step for _, step in history(cfg, run, "step")] == [16, 32, 48, 64, 80]  # of 2 pictures, one on each
    # Each rank evaluated two of the four pictures; the file is evaluated here on all of them.
    assert evaluate_file(result.best, small_set / "val_label.txt", progress=False).score.hmean == result.hmean


def test_a_picture_that_vanishes_ends_the_run_and_mended_it_goes_on(
    cfg: RecipeConfig, small_set: Path, many_bare_losses: list[float]
) -> None:
    cfg = override(cfg, ["optim.epochs=20"])  # so that it does not end before anybody has seen it begin
    picture = small_set / "train" / "00003.jpg"
    away = picture.with_suffix(".away")
    live = Watched(epoch=1, then=lambda: picture.rename(away))
    try:
        with pytest.raises(DataError, match=r"pictures failed in epoch \d.*data\.max_failed=0\.01.*00003\.jpg") as seen:
            train(cfg, "vanishing", live=live)
    finally:
        away.replace(picture)
    assert "\n" not in str(seen.value)
    assert run_of(cfg, "vanishing").info.status == "FAILED"
    record = Path(cfg.ray.storage) / "vanishing" / "stopped.json"
    assert json.loads(record.read_text()) == {"kind": "DataError", "message": str(seen.value)}
    steps = [(e.epoch, e.step) for e in live.events if e.phase == "training"]
    assert steps == sorted(steps)  # it was not tried again

    again = Watched()
    assert train(cfg, "vanishing", resume=True, live=again).epochs == 20
    assert not record.exists()
    assert min(e.epoch for e in again.events if e.phase == "training") >= 1  # from the checkpoint on
    run = run_of(cfg, "vanishing")
    assert run.info.status == "FINISHED"
    assert history(cfg, run, "loss.total") == list(enumerate(many_bare_losses, start=1))


def test_a_loss_that_is_not_finite_is_written_down_and_not_tried_again(cfg: RecipeConfig) -> None:
    huge = ["optim.lr=1e30", "ray.num_workers=2", "data.batch_size=1"]
    live = Watched()
    with pytest.raises(RunError, match=r"loss is not finite at step \d+ \(total nan.*pictures are listed in") as seen:
        train(override(cfg, huge), "diverging", live=live)
    record = json.loads((Path(cfg.ray.storage) / "diverging" / "stopped.json").read_text())
    assert record["message"] == str(seen.value)
    assert record["parts"].keys() == {"total", "db.Student.shrink", "db.Student.threshold", "db.Student.binary"}
    assert [Path(image).exists() for image in record["images"]] == [True]  # the batch of the worker that met it
    assert run_of(cfg, "diverging").info.status == "FAILED"
