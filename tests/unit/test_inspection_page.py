"""The page about weights, the copy with better settings, and the sheet of training samples, from real files."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ocr_ray.config import CMLConfig, load_config, override
from ocr_ray.data.dataset import TrainDataset
from ocr_ray.data.images import read_image
from ocr_ray.data.labels import read_labels
from ocr_ray.data.resize import ResizeConfig
from ocr_ray.errors import ConfigError, WeightsError
from ocr_ray.evidence import Comparison
from ocr_ray.inspection.errors import KINDS
from ocr_ray.inspection.look import check_copy, inspect, write_better
from ocr_ray.inspection.page import page_of, write_inspection
from ocr_ray.inspection.samples import draw_shrink, draw_threshold, first_samples, show_samples
from ocr_ray.inspection.search import KEYS, Found, Grid, Half
from ocr_ray.model_card import ModelCard, load_detector, save_detector
from ocr_ray.models.detector import Detector
from ocr_ray.postprocess import PostprocessConfig
from ocr_ray.predict import evaluate_file
from ocr_ray.report.blocks import Pictures, Table
from ocr_ray.report.html import rendered
from ocr_ray.visualize import PREDICTED, WRONG
from ocr_ray.weights.load import read_weights

CARD = ModelCard(resize=ResizeConfig(128, "max"), postprocess=PostprocessConfig(thresh=0.5, box_thresh=0.4))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random ones: with the thresholds of the card they take parts of any picture for text."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "student.safetensors"
    save_detector(path, Detector(CARD.detector), CARD)
    return path


def found(gain: float) -> Found:
    """As a search would tell that took `box_thresh` from .4 to .7."""
    own, best = CARD.postprocess, dataclasses.replace(CARD.postprocess, box_thresh=0.7)
    profiles = dict.fromkeys(KEYS, ((0.4, 0.5, 0.5), (0.7, 0.6, 0.5 + gain)))
    halves = Half(2, 0.6, 0.5), Half(2, 0.5 + gain, 0.5)
    return Found(own, best, Grid(), *halves, Comparison(gain, gain - 0.1, gain + 0.1, 0.5, 1, 2), profiles, 0.1)


def test_the_page_agrees_with_the_evaluation_and_needs_nothing_beside_it(
    weights: Path, small_set: Path, tmp_path: Path
) -> None:
    labels = small_set / "val_label.txt"
    page, seen = write_inspection(weights, labels, tmp_path / "out", worst=2)
    evaluation = evaluate_file(weights, labels, progress=False)
    score = evaluation.score
    assert seen.evaluation.score == score
    assert score.detected > 0
    assert len(seen.regions) == sum(seen.fates.values()) == score.ground_truth
    assert sum(seen.detections.values()) == score.detected
    wrong = sum(seen.fates[kind] + seen.detections[kind] for kind in KINDS)
    assert wrong == score.ground_truth + score.detected - 2 * score.matched

    per_image = {p.name: p.ground_truth + p.detected - 2 * p.matched for p in evaluation.per_image}
    assert [image.errors.count for image in seen.worst] == sorted(per_image.values(), reverse=True)[:2]
    assert all(image.errors.count == per_image[image.result.sample.name] for image in seen.worst)

    text = page.read_text()
    assert f"Hmean {score.hmean:.4f} on 4 pictures" in text
    assert text.count("<img ") == 2 * 4
    assert not re.findall(r'<(?:img|script|link)[^>]*(?:src|href)="(?!data:)', text)
    assert str(seen.worst[0].result.sample.name) in text
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["inspect.html"]


def test_names_on_the_page_are_escaped_and_the_best_settings_named(weights: Path, small_set: Path) -> None:
    seen = inspect(weights, small_set / "val_label.txt", worst=1)
    hostile = dataclasses.replace(seen, weights=Path("<script>alert(1)</script>.onnx"), found=found(0.1))
    text = rendered(page_of(hostile))
    assert "<script>alert(1)" not in text
    assert "eval.postprocess.box_thresh=0.7" in text
    assert "gives hmean 0.6000 instead of 0.5000" in text
    sections = {section.name: section for section in page_of(hostile).sections}
    (settings,) = [block for block in sections["settings"].blocks if isinstance(block, Table)]
    assert [row.mark for row in settings.rows] == ["", "winner"]
    worst = sections["worst"].blocks[0]
    assert isinstance(worst, Pictures)
    assert [p.caption.split(":")[0] for p in worst.pictures] == [
        "labelled",
        "found",
        "probability map",
        "errors, enlarged",
    ]


def test_a_set_without_errors_or_text_still_has_a_page(weights: Path, small_set: Path, tmp_path: Path) -> None:
    (sample, *_) = read_labels(small_set / "val_label.txt")
    labels = tmp_path / "labels.txt"
    labels.write_text(f"{sample.image.relative_to(small_set)}\t[]\n")
    strict = tmp_path / "strict.safetensors"
    postprocess = PostprocessConfig(thresh=0.9, box_thresh=1)
    save_detector(strict, load_detector(weights)[0], dataclasses.replace(CARD, postprocess=postprocess))
    page, seen = write_inspection(strict, labels, tmp_path, root=small_set)
    assert seen.worst == ()
    assert seen.found is None
    assert "without an error" in page.read_text()


def test_better_settings_go_into_a_copy_that_is_used_with_them(weights: Path, small_set: Path, tmp_path: Path) -> None:
    labels, out = small_set / "val_label.txt", tmp_path / "better.safetensors"
    seen = inspect(weights, labels, worst=0)
    line = write_better(dataclasses.replace(seen, found=found(0.1)), out)
    assert line.startswith(f"{out}: written, the best of")
    before, after = read_weights(weights), read_weights(out)
    assert before.arrays[""].keys() == after.arrays[""].keys()
    for name, array in before.arrays[""].items():
        np.testing.assert_array_equal(array, after.arrays[""][name])
    _, card, _ = load_detector(out)
    assert card.postprocess == found(0.1).best
    assert card.origin.settings is not None
    assert "on the other half hmean 0.6000 instead of 0.5000" in card.origin.settings
    assert dataclasses.replace(card, postprocess=CARD.postprocess, origin=CARD.origin) == CARD
    with_them = inspect(out, labels, worst=0).evaluation.score
    assert with_them == evaluate_file(out, labels, progress=False).score
    assert with_them.detected < seen.evaluation.score.detected


def test_settings_that_are_no_better_are_not_written(weights: Path, small_set: Path, tmp_path: Path) -> None:
    seen = inspect(weights, small_set / "val_label.txt", worst=0)
    for none in (found(0.0), found(-0.1), None):
        line = write_better(dataclasses.replace(seen, found=none), tmp_path / "x.safetensors")
        assert ": not written, " in line
    assert not list(tmp_path.iterdir())
    with pytest.raises(WeightsError, match="expected another one"):
        check_copy(weights, weights.parent / "." / weights.name)
    with pytest.raises(WeightsError, match="which holds settings"):
        check_copy(weights, tmp_path / "x.pdparams")


def test_the_samples_are_those_with_which_a_run_begins(tiny: list[str]) -> None:
    cfg = load_config(Path(tiny[0]), tiny[1:])
    shown = first_samples(cfg, 14)  # of 12: the last two come round again
    assert len(shown) == 14
    assert len({sample.name for sample in shown[:12]}) == 12
    dataset = TrainDataset(read_labels(Path(cfg.data.train[0])), cfg.data.augment, cfg.data.targets, cfg.run.seed)
    names = [Path(sample.image).name for sample in read_labels(Path(cfg.data.train[0]))]
    first = dataset[(0, names.index(shown[0].name))]
    expected = draw_shrink(
        first.image.numpy().transpose(1, 2, 0), first.targets.shrink_map.numpy(), first.targets.shrink_mask.numpy()
    )
    np.testing.assert_array_equal(shown[0].shrink, expected)
    np.testing.assert_array_equal(first_samples(cfg, 14)[13].picture, shown[13].picture)


def test_maps_and_masks_are_told_apart() -> None:
    picture = np.full((4, 4, 3), 100, np.uint8)
    drawn = draw_shrink(picture, np.array([[1, 0, 0, 0]] * 4, np.uint8), np.array([[1, 0, 1, 1]] * 4, np.uint8))
    kernel, masked, plain = (drawn[0, i].astype(int) for i in range(3))
    assert np.abs(kernel - PREDICTED).sum() < np.abs(kernel - WRONG).sum()
    assert np.abs(masked - WRONG).sum() < np.abs(masked - PREDICTED).sum()
    assert plain.tolist() == [35] * 3
    levels = np.array([[0.3, 0.5, 0.7, 0.7]] * 4, np.float32)
    drawn = draw_threshold(picture, levels, np.array([[1, 1, 1, 0]] * 4, np.uint8))
    assert (np.diff(drawn[0, :3].astype(int).sum(axis=1)) > 0).all()
    assert drawn[0, 3].tolist() == [35] * 3


@pytest.mark.parametrize("name", ["samples.png", "samples.html"])
def test_a_sheet_or_a_page_of_samples(small_set: Path, tmp_path: Path, name: str) -> None:
    sizes = ["data.augment.crop_width=128", "data.augment.crop_height=64"]
    line = show_samples(small_set / "train_label.txt", tmp_path / name, 3, overrides=sizes)
    assert line.startswith(f"{tmp_path / name}: 3 samples; ")
    if name.endswith("png"):
        assert read_image(tmp_path / name).shape == (2 * 150, 2 * 900, 3)
    else:
        assert (tmp_path / name).read_text().count("<img ") == 9


def test_labels_replace_those_of_the_config_with_their_shares(small_set: Path, tmp_path: Path, tiny: list[str]) -> None:
    config = tmp_path / "mixed.yaml"
    config.write_text(Path(tiny[0]).read_text())
    mixed = ["data.train=[a.txt,b.txt]", "data.mix=0.5", "data.root=/nowhere"]
    assert override(CMLConfig(), mixed).data.mix == 0.5
    line = show_samples(small_set / "train_label.txt", tmp_path / "x.jpg", 1, config, overrides=mixed)
    assert ": 1 sample; " in line
    with pytest.raises(ConfigError, match=r"optim\.lrr"):
        show_samples(small_set / "train_label.txt", tmp_path / "y.jpg", 1, overrides=["optim.lrr=1"])
    assert not (tmp_path / "y.jpg").exists()
