import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ocr_ray.data.images import read_image, write_image
from ocr_ray.data.labels import read_labels
from ocr_ray.data.resize import ResizeConfig
from ocr_ray.data.synth import SynthConfig, render_set
from ocr_ray.errors import ConfigError, DataError, UserError
from ocr_ray.model_card import ModelCard, save_detector
from ocr_ray.models.detector import Detector
from ocr_ray.postprocess import PostprocessConfig
from ocr_ray.predict import evaluate_file, predict

CARD = ModelCard(resize=ResizeConfig(128, "max"), postprocess=PostprocessConfig(thresh=0.5, box_thresh=0.4))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random ones: with the thresholds of the card they take parts of any picture for text."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "student.safetensors"
    save_detector(path, Detector(CARD.detector), CARD)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / "in" / name for name in ("a.png", "b.jpg", "more/a.png")]
    for path in paths:
        write_image(path, rng.integers(0, 256, (96, 128, 3), np.uint8))
    return paths


def test_predictions_read_back_as_labels(weights: Path, pictures: list[Path], tmp_path: Path) -> None:
    found = predict(weights, pictures, tmp_path / "out")
    assert [path.name for path in found.overlays] == ["a.text.jpg", "b.text.jpg", "a.2.text.jpg"]
    for path in found.overlays:
        assert read_image(path).shape == (96, 256, 3)  # the map beside the picture
    assert found.root == tmp_path / "in"
    samples = read_labels(found.labels, found.root)
    assert [sample.image for sample in samples] == pictures
    assert sum(len(sample.polygons) for sample in samples) == found.regions > 0
    again = evaluate_file(weights, found.labels, found.root, progress=False)
    assert again.score.matched == again.score.ground_truth == again.score.detected > 0
    assert str(found.labels) in str(found)


def test_a_wrong_picture_stops_it_before_anything_is_written(
    weights: Path, pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no picture")
    for wrong in (tmp_path / "in" / "broken.jpg", tmp_path / "gone.jpg", tmp_path / "in"):
        with pytest.raises(DataError, match=str(wrong)):
            predict(weights, [*pictures, wrong], tmp_path / "out")
    with pytest.raises(DataError, match="at least one"):
        predict(weights, [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_overlay_never_replaces_a_picture(weights: Path, pictures: list[Path], tmp_path: Path) -> None:
    earlier = tmp_path / "in" / "a.text.jpg"
    write_image(earlier, np.zeros((64, 64, 3), np.uint8))
    before = earlier.read_bytes()
    with pytest.raises(DataError, match="would be overwritten"):
        predict(weights, [pictures[0], earlier], tmp_path / "in")
    assert earlier.read_bytes() == before


def test_out_must_be_a_folder(weights: Path, pictures: list[Path]) -> None:
    with pytest.raises(UserError, match="expected a folder"):
        predict(weights, pictures, pictures[0])


def test_the_resize_rule_travels_with_the_weights_and_can_be_replaced(weights: Path, tmp_path: Path) -> None:
    _, val = render_set(tmp_path / "set", SynthConfig(train=1, val=2), seed=0)
    assert evaluate_file(weights, val, progress=False).resize == "longest side at most 128"
    assert evaluate_file(weights, val, limit_side_len=96, progress=False).resize == "longest side at most 96"
    assert evaluate_file(weights, val, None, None, 64, "min", progress=False).resize == "shortest side at least 64"
    with pytest.raises(ConfigError, match="limit_type"):
        evaluate_file(weights, val, limit_type="middle", progress=False)


def test_a_limit_outranks_a_fixed_size_in_the_card(tmp_path: Path) -> None:
    card = dataclasses.replace(CARD, resize=ResizeConfig(image_shape=(64, 96)))
    save_detector(tmp_path / "fixed.safetensors", Detector(card.detector), card)
    _, val = render_set(tmp_path / "set", SynthConfig(train=1, val=1), seed=0)
    assert evaluate_file(tmp_path / "fixed.safetensors", val, progress=False).resize == "96x64"
    replaced = evaluate_file(tmp_path / "fixed.safetensors", val, limit_side_len=96, progress=False)
    assert replaced.resize == "shortest side at least 96"
