"""A pipeline whose driver is killed in each of its stages ends with the files of one that nobody disturbed."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from ocr_ray.data.synth import SynthConfig, render_set
from ocr_ray.reports import read_reports
from ocr_ray.teaching.sharing import TEACHER_FILE
from ocr_ray.weights.safetensors import read_safetensors
from tests.killed import TOLD, Command, tracked_runs, trials_in

EPOCHS = 3
BOTH = {
    "data": {"batch_size": 2, "epoch_size": 16, "num_workers": 0, "augment": {"crop_width": 64, "crop_height": 64}},
    "optim": {"lr": 5e-3, "epochs": EPOCHS, "warmup_epochs": 0.5},
    "eval": {"every_epochs": 1, "resize": {"limit_side_len": 128, "limit_type": "max"}},
    "run": {"threads": 1},
    "ray": {"storage": "runs", "address": "local", "cpus_per_worker": 0.9},
    "sweep": {"trials": 2, "max_concurrent": 1, "neighbours": 0, "scheduler": "none"},
}
TEACHER = {
    "backbone": {"kind": "resnet_vd", "layers": 18, "width": 0.5},
    "neck": {"kind": "lkpan", "out_channels": 64, "mode": "lite"},
}


class Pipeline:
    """`ocr-ray pipeline` of three epochs a stage, one trial at a time."""

    def __init__(self, folder: Path, labels: tuple[Path, Path]) -> None:
        self.storage = folder / "runs"
        folder.mkdir()
        root = Path(__file__).resolve().parents[2]
        both = {**BOTH, "data": {**BOTH["data"], "train": [str(labels[0])], "val": [str(labels[1])]}}
        stages = {
            "both": both,
            "dml": {"recipe": str(root / "configs/ppocrv3_det_dml.yaml"), "values": {"student": {"detector": TEACHER}}},
            "cml": {
                "recipe": str(root / "configs/ppocrv3_det_cml.yaml"),
                "space": str(root / "search_spaces/cml_loss_weights.yaml"),
            },
        }
        (folder / "pipeline.yaml").write_text(yaml.safe_dump(stages))
        self.command = Command(folder, "pipeline", "pipeline.yaml", "--out", "student.safetensors")
        self.student = folder / "student.safetensors"

    def found(self, what: str) -> Path:
        return next(self.storage.glob(f"{what}-*"), self.storage / "none yet")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_same_command_goes_on_in_whatever_stage_it_was_killed(tmp_path: Path) -> None:
    labels = render_set(tmp_path / "data", SynthConfig(train=16, val=4), seed=0)
    killed = Pipeline(tmp_path / "killed", labels)
    killed.command.kill_when(lambda _: len(read_reports(killed.found("teacher"))) == 2)
    killed.command.kill_when(lambda _: any(trial["epochs"] >= 2 for trial in trials_in(killed.found("students"))))
    killed.command.kill_when(lambda _: len(trials_in(killed.found("students"))) == 2)
    assert not killed.student.exists()
    killed.command.end()
    undisturbed = Pipeline(tmp_path / "undisturbed", labels)
    undisturbed.command.end()
    tables = [
        [{key: trial[key] for key in TOLD} for trial in trials_in(pipeline.found("students"))]
        for pipeline in (killed, undisturbed)
    ]
    assert tables[0] == tables[1]
    assert [trial["epochs"] for trial in tables[0]] == [EPOCHS] * 2
    assert tracked_runs(killed.storage) == tracked_runs(undisturbed.storage)
    assert len(tracked_runs(killed.storage)) == 4  # teacher, sweep, two trials
    read = [
        json.loads((pipeline.found("students") / TEACHER_FILE).read_text())["teacher.answers_read"]
        for pipeline in (killed, undisturbed)
    ]
    assert read[0] > 0.8 * read[1] > 0  # over all its drivers, of which each may lose those of an epoch
    one, other = (read_safetensors(pipeline.student)[0] for pipeline in (killed, undisturbed))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
    before = killed.student.read_bytes()
    said = killed.command.end()
    assert said.count("is there already") == 2
    assert killed.student.read_bytes() == before
