"""Released and real weights: the nets give the maps that other runtimes gave."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ocr_ray.data.normalize import normalize
from ocr_ray.errors import WeightsError
from ocr_ray.model_card import load_detector
from ocr_ray.models.db_fpn import DBFPNConfig
from ocr_ray.models.detector import Detector, DetectorConfig
from ocr_ray.weights.extract import convert
from ocr_ray.weights.load import load_file, read_weights
from ocr_ray.weights.pdparams import read_pdparams

TOLERANCE = 1e-3
STUDENT, MV3, MAPS = (
    "ppocrv3_det_student_real.npz", "paddle_db_mv3_ic15_best.pdparams", "ppocrv3_det_student_real_io.npz",
)  # fmt: skip


@torch.no_grad()
def test_the_released_student_gives_its_map(golden_file: Callable[[str], Path]) -> None:
    maps = np.load(golden_file(MAPS))
    detector, card, coverage = load_detector(golden_file(STUDENT))
    shrink = detector.shrink_map(torch.from_numpy(maps["x"])).numpy()
    assert card.detector == DetectorConfig()
    assert card.origin.new_parts == ("head.thresh",)
    assert len(coverage.matched) == 288
    expected = maps["ppocrv3_map"].reshape(shrink.shape)
    assert expected.max() > 0.5  # there is text in it
    np.testing.assert_allclose(shrink, expected, rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_a_db_checkpoint_of_paddle_gives_its_maps(golden_file: Callable[[str], Path]) -> None:
    maps = np.load(golden_file(MAPS))
    detector, card, coverage = load_detector(golden_file(MV3))
    found = detector(torch.from_numpy(maps["x"]))
    assert card.detector == DetectorConfig(neck=DBFPNConfig(out_channels=96))
    assert coverage.whole
    assert not coverage.new
    for ours, theirs in ((found.shrink, "mv3_shrink"), (found.threshold, "mv3_thresh")):
        np.testing.assert_allclose(ours.numpy(), maps[theirs].reshape(ours.shape), rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_the_maps_come_out_from_pixels_too(golden_file: Callable[[str], Path]) -> None:
    maps = np.load(golden_file(MAPS))
    detector, card, _ = load_detector(golden_file(MV3))
    image = torch.from_numpy(maps["image_bgr_u8"]).permute(2, 0, 1)[None]
    shrink = detector.shrink_map(normalize(image, card.normalize)).numpy()
    np.testing.assert_allclose(shrink, maps["mv3_shrink"].reshape(shrink.shape), rtol=0, atol=TOLERANCE)


def test_training_from_the_released_student_needs_its_missing_branch_named(golden_file: Callable[[str], Path]) -> None:
    file = read_weights(golden_file(STUDENT))
    detector = Detector(DetectorConfig())
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    with pytest.raises(WeightsError, match=r"288 of 301 arrays matched; missing head\.thresh\.\* \(13\)"):
        load_file(detector, file, "Student")
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())
    coverage = load_file(detector, file, "Student", may_be_new=["head.thresh"])
    assert len(coverage.new) == 13
    for name, tensor in detector.state_dict().items():
        is_new = name.startswith("head.thresh.")
        assert is_new or np.array_equal(tensor.numpy(), file.arrays[""][name])
        assert not is_new or torch.equal(tensor, before[name])


def test_the_real_checkpoint_survives_conversion(golden_file: Callable[[str], Path], tmp_path: Path) -> None:
    source = golden_file(MV3)
    convert(source, tmp_path / "ours.safetensors")
    convert(tmp_path / "ours.safetensors", tmp_path / "back.pdparams")
    original, back = read_pdparams(source), read_pdparams(tmp_path / "back.pdparams")
    assert original.keys() == back.keys()
    assert all(original[key].tobytes() == back[key].tobytes() for key in original)
