"""The winner's worst pictures beside the control's, drawn from real files of weights."""

import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ocr_ray.config import load_config, override, to_yaml
from ocr_ray.model_card import ModelCard, save_detector
from ocr_ray.models.detector import Detector, DetectorConfig
from ocr_ray.models.mobilenet_v3 import MobileNetV3Config
from ocr_ray.report.pictures import worst_pictures
from ocr_ray.report.read import read_sweep

RECORDED = Path(__file__).resolve().parents[1] / "data" / "sweep"


@pytest.fixture
def folder(tmp_path: Path, small_set: Path) -> Path:
    """The recorded sweep with its pictures, and with weights (of nets that know nothing) for each trial."""
    folder = Path(shutil.copytree(RECORDED, tmp_path / "words"))
    cfg = override(
        load_config(folder / "config.yaml"), [f"data.val=[{small_set / 'val_label.txt'}]", "data.val_size=null"]
    )
    (folder / "config.yaml").write_text(to_yaml(cfg))
    torch.manual_seed(0)
    card = ModelCard(detector=DetectorConfig(backbone=MobileNetV3Config(scale=0.35)))
    save_detector(tmp_path / "one.safetensors", Detector(card.detector), card)
    for trial in read_sweep(folder).trials:
        best = folder / "train" / trial.trial_id / "best"
        best.mkdir()
        shutil.copy(tmp_path / "one.safetensors", best / "student.safetensors")
    return folder


def test_winner_and_control_see_the_same_pictures(folder: Path) -> None:
    sweep = read_sweep(folder)
    found = worst_pictures(sweep, shown=3)
    assert sweep.winner is not None
    assert found.note.startswith(f"Of 4 pictures of val, those on which trial {sweep.winner.number} misses")
    assert len(found.pictures) == 3
    for pair in found.pictures:
        mine, control = pair.pictures
        assert mine.caption.startswith(f"trial {sweep.winner.number}: 0 of ")
        assert control.caption.startswith("trial 1, the config's own values: 0 of ")
        jpeg = cv2.imdecode(np.frombuffer(base64.b64decode(mine.jpeg), np.uint8), cv2.IMREAD_COLOR)
        assert jpeg is not None
        assert jpeg.shape[:2] == (mine.height, mine.width)
        assert len(mine.jpeg) < 200_000


def test_counts_that_were_kept_say_which_are_the_worst(folder: Path, small_set: Path) -> None:
    sweep = read_sweep(folder)
    assert sweep.winner is not None
    assert sweep.winner.weights is not None
    names = [line.split("\t")[0] for line in (small_set / "val_label.txt").read_text().splitlines()]
    columns = {"matched": [2, 0, 1, 2], "ground_truth": [2, 2, 2, 2], "detected": [2, 1, 2, 3]}
    (sweep.winner.weights.parent / "per_image.json").write_text(
        json.dumps({"index": list(range(4)), "name": names, **columns})
    )
    found = worst_pictures(read_sweep(folder))
    assert [pair.title for pair in found.pictures] == [names[1], names[2], names[3]]  # the first has no mistake


def test_a_winner_that_is_the_control_is_shown_alone(folder: Path) -> None:
    sweep = read_sweep(folder)
    alone = worst_pictures(replace(sweep, trials=sweep.trials[:1]), shown=2)
    (gallery,) = alone.pictures
    assert len(gallery.pictures) == 2
    assert alone.note.endswith("There is no control whose weights it could be set against.")


def test_what_is_gone_is_said_in_a_sentence(folder: Path) -> None:
    sweep = read_sweep(folder)
    assert sweep.winner is not None
    gone = worst_pictures(replace(sweep, trials=tuple(replace(t, weights=None) for t in sweep.trials)))
    assert gone.pictures == ()
    assert (
        gone.note
        == f"The weights of trial {sweep.winner.number} are not there any more, so its pictures cannot be drawn."
    )
    config = folder / "config.yaml"
    config.write_text(to_yaml(override(load_config(config), ["data.val=[/nowhere/val_label.txt]"])))
    lost = worst_pictures(sweep)
    assert lost.pictures == ()
    assert lost.note.startswith("The pictures cannot be shown: /nowhere/val_label.txt: ")
