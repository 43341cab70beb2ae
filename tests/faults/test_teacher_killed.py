"""The producer of a sweep's teacher answers killed half-way: every trial ends as if each had had its own teacher.

Trials are of two workers, so that each piece is read by both, each its share.
"""

import contextlib
import io
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from mlflow import MlflowClient
from rich.console import Console

from ocr_ray.config import CMLConfig, load_config, override
from ocr_ray.data.synth import SynthConfig, render_set
from ocr_ray.model_card import ModelCard, save_detector
from ocr_ray.models.db_head import DBHeadConfig
from ocr_ray.models.detector import Detector, DetectorConfig
from ocr_ray.models.lkpan import LKPANConfig
from ocr_ray.models.resnet_vd import ResNetVdConfig
from ocr_ray.progress import LiveFeed
from ocr_ray.reports import read_reports
from ocr_ray.session import connected
from ocr_ray.settings import ClusterConfig
from ocr_ray.spaces import space_from_plain
from ocr_ray.sweep_result import SweepResult
from ocr_ray.teaching.sharing import STORE_FOLDER
from ocr_ray.tune import sweep

TINY = Path(__file__).resolve().parents[1] / "tiny_student.yaml"
EPOCHS = 4
SPACE = {"loss.distill.weight": {"uniform": [0.5, 2.0]}}


@pytest.fixture
def cfg(tmp_path: Path) -> CMLConfig:
    train, val = render_set(tmp_path / "data", SynthConfig(train=70, val=2, width=160, height=160), seed=0)
    torch.manual_seed(0)
    detector = DetectorConfig(ResNetVdConfig(layers=18, width=0.25), LKPANConfig(out_channels=32), DBHeadConfig())
    save_detector(tmp_path / "teacher.safetensors", Detector(detector), ModelCard(detector=detector))
    common = load_config(TINY)
    cfg = CMLConfig(student=common.student, optim=common.optim, data=common.data, eval=common.eval, run=common.run)
    settings = [
        *(f"data.train=[{train}]", f"data.val=[{val}]", f"ray.storage={tmp_path}/runs", "ray.num_workers=2"),
        *(f"teacher.weights={tmp_path}/teacher.safetensors", "run.evaluate_start=false", f"optim.epochs={EPOCHS}"),
        *(
            "ray.cpus_per_worker=0.45",
            "data.epoch_size=64",
            "sweep.trials=2",
            "sweep.scheduler=none",
            "sweep.searcher=random",
        ),
        "data.on_device=true",  # by the harder road: producers and trials warp the pictures themselves
    ]
    changed = override(cfg, settings)
    assert isinstance(changed, CMLConfig)
    return changed


class ProducerKiller:
    """Kills the process that computes answers once some pieces are there, and again a few later."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.killed: set[int] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "ProducerKiller":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while len(self.killed) < 2 and not self._over.is_set():
            if len(list(self.store.rglob("*.parquet"))) > len(self.killed):
                for process in psutil.Process().children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        if process.name().startswith("ray::TeacherProd") and process.pid not in self.killed:
                            process.send_signal(signal.SIGKILL)
                            self.killed.add(process.pid)
            time.sleep(0.02)


def losses(result: SweepResult) -> list[list[dict[str, float]]]:
    """Each trial's loss parts by epoch."""
    return [
        [
            {k: v for k, v in report.items() if k.startswith(("loss.", "hmean"))}
            for report in read_reports(result.folder / "train" / trial.trial_id)
        ]
        for trial in result.trials
    ]


@pytest.mark.slow
def test_a_killed_producer_changes_no_number_in_any_trial(cfg: CMLConfig, tmp_path: Path) -> None:
    space = space_from_plain(SPACE, cfg, "space")
    live = LiveFeed(Console(file=io.StringIO()))
    with connected(ClusterConfig()):
        with ProducerKiller(tmp_path / "runs" / STORE_FOLDER) as killer:
            shared = sweep(cfg, space, name="shared", live=live)
        alone = override(cfg, ["teacher.shared=false"])
        undisturbed = sweep(alone, space, name="undisturbed", live=live)
    assert len(killer.killed) == 2
    assert [t.end for t in shared.trials] == ["finished"] * 2
    assert [len(trial) for trial in losses(shared)] == [EPOCHS] * 2
    assert losses(shared) == losses(undisturbed)
    assert undisturbed.taught is None
    taught = shared.taught
    assert taught is not None
    assert taught.live == 0
    assert taught.read >= 2 * 64 * EPOCHS > 1.5 * taught.made > 0  # each picture once, not once a trial
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    (parent,) = (run for run in runs if run.info.run_name == "shared")
    assert parent.data.metrics["teacher.hit_rate"] == pytest.approx(taught.hit_rate)
    assert parent.data.metrics["teacher.bytes_per_picture"] > 0
