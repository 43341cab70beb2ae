"""Both nets of PP-OCRv3 against the reference: states, features, maps, running statistics, initialisation."""

import json
from collections.abc import Callable
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ocr_ray.models.detector import Detector, DetectorConfig, teacher_config
from ocr_ray.models.distillation import CMLTriple, DMLPair
from ocr_ray.weights.pdparams import read_pdparams

CONFIGS = {"student": DetectorConfig(), "teacher": teacher_config()}
INPUTS = ("x0", "x1")
MAP_NAMES = ("shrink", "threshold", "binary")
# the README's: the reference itself is that far from its own float64 run, times five to ten
TRAIN_TOLERANCE = {"student": (1e-4, 1e-4, 1e-3), "teacher": (2e-3, 2e-3, 2e-2)}
Fill = Callable[[nn.Module], None]
Name = Callable[[str], str]


@pytest.fixture(scope="module")
def filled(fill_by_recipe: Fill) -> dict[str, Detector]:
    """The two nets with the vectors' weights. A test that trains one puts its state back."""
    detectors = {name: Detector(cfg) for name, cfg in CONFIGS.items()}
    for detector in detectors.values():
        fill_by_recipe(detector)
    return detectors


def named_state(module: nn.Module, reference_name: Name) -> dict[str, torch.Tensor]:
    return {reference_name(name): tensor for name, tensor in module.state_dict().items()}


def build(name: str) -> nn.Module:
    match name:
        case "cml":
            return CMLTriple(*(Detector(CONFIGS[n]) for n in ("student", "student", "teacher")))
        case "dml":
            return DMLPair(Detector(CONFIGS["teacher"]), Detector(CONFIGS["teacher"]))
        case _:
            return Detector(CONFIGS[name])


@pytest.mark.parametrize(
    ("name", "entries", "trainable"),
    [
        ("student", 301, 603_418),
        ("teacher", 316, 32_895_970),
        ("cml", 918, 1_206_836),
        ("dml", 632, 65_791_940),
    ],
)
def test_state_entries_are_the_references(
    golden_file: Callable[[str], Path], reference_name: Name, name: str, entries: int, trainable: int
) -> None:
    expected = json.loads(golden_file("a_state_dict_keys.json").read_text())[name]
    with torch.device("meta"):
        module = build(name)
    learns = {n for n, p in module.named_parameters() if p.requires_grad}
    ours = [(reference_name(name), list(tensor.shape), name in learns) for name, tensor in module.state_dict().items()]
    assert ours == [(e["key"], e["shape"], e["trainable"]) for e in expected]
    assert len(ours) == entries
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == trainable


def test_stored_weights_equal_the_recipe(golden: Path, filled: dict[str, Detector], reference_name: Name) -> None:
    stored = read_pdparams(golden / "a_student_detinit.pdparams")
    state = named_state(filled["student"], reference_name)
    assert stored.keys() == state.keys()
    for name, array in stored.items():
        np.testing.assert_array_equal(state[name].numpy(), array, err_msg=name)


@pytest.mark.parametrize("x", INPUTS)
@pytest.mark.parametrize("name", CONFIGS)
def test_features_and_eval_map(golden: Path, filled: dict[str, Detector], name: str, x: str) -> None:
    vectors = np.load(golden / f"a_{name}.npz")
    detector = filled[name].eval()
    images = torch.from_numpy(vectors[f"{x}/input"])
    with torch.no_grad():
        features = detector.backbone(images)
        maps = {"c2": features[0], "c3": features[1], "c4": features[2], "c5": features[3]}
        maps["neck"] = detector.neck(features)
        shrink = detector.shrink_map(images)
        torch.testing.assert_close(detector(images).shrink, shrink, rtol=0, atol=0)
    meta = json.loads((golden / "a_models_meta.json").read_text())[name][x]["feats_eval"]
    for key, value in maps.items():
        assert list(value.shape) == meta[key]["shape"]
        sampled = value[:, :: max(1, value.shape[1] // 16), ::3, ::3]
        torch.testing.assert_close(sampled, torch.from_numpy(vectors[f"{x}/feat_eval_{key}"]), rtol=0, atol=1e-5)
        assert float(value.double().norm()) == pytest.approx(meta[key]["l2"], rel=1e-5)
    torch.testing.assert_close(shrink, torch.from_numpy(vectors[f"{x}/eval_maps"][:, 0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("x", INPUTS)
@pytest.mark.parametrize("name", CONFIGS)
def test_training_forward(golden: Path, filled: dict[str, Detector], reference_name: Name, name: str, x: str) -> None:
    vectors = np.load(golden / f"a_{name}.npz")
    detector = filled[name]
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    try:
        with torch.no_grad():
            maps = detector.train()(torch.from_numpy(vectors[f"{x}/input"]))
        for i, (key, tolerance) in enumerate(zip(MAP_NAMES, TRAIN_TOLERANCE[name], strict=True)):
            expected = torch.from_numpy(vectors[f"{x}/train_maps"][:, i])
            torch.testing.assert_close(getattr(maps, key), expected, rtol=0, atol=tolerance)
        statistics = {k.split("/", 1)[1]: vectors[k] for k in vectors.files if k.startswith("bn_after_1_train_fwd/")}
        state = named_state(detector, reference_name)
        assert statistics.keys() == {k for k in state if k.endswith(("._mean", "._variance"))}
        if x == "x0":  # the forward after which the reference stored them
            for key, array in statistics.items():
                np.testing.assert_allclose(state[key].numpy(), array, rtol=0, atol=1e-4, err_msg=key)
    finally:
        detector.load_state_dict(before)


@pytest.mark.parametrize("name", CONFIGS)
def test_initialisation_is_the_references(golden_file: Callable[[str], Path], reference_name: Name, name: str) -> None:
    """Two draws of one distribution: their moments agree as far as their number of values lets them."""
    expected = json.loads(golden_file("a_default_init_stats.json").read_text())[name]
    torch.manual_seed(0)
    state = named_state(Detector(CONFIGS[name]), reference_name)
    assert state.keys() == expected.keys()
    for key, theirs in expected.items():
        ours = state[key].double()
        assert list(ours.shape) == theirs["shape"]
        if theirs["std"] == 0 and ours.numel() > 1:  # a constant
            assert ours.min() == ours.max() == pytest.approx(theirs["mean"], rel=1e-6), key
            continue
        count = ours.numel()
        std = max(theirs["std"], float(ours.std()) if count > 1 else 1.0)
        # Five standard errors of a mean and of a deviation (a normal's; a uniform's is smaller), of two draws.
        assert float(ours.mean()) == pytest.approx(theirs["mean"], abs=5 * std * sqrt(2 / count)), key
        if count == 1:
            continue
        assert float(ours.std(unbiased=False)) == pytest.approx(theirs["std"], abs=5 * std * sqrt(1 / count)), key
        if count >= 500:
            # A uniform's largest value is its bound, 1.73 deviations; a normal's of that many is above 2.5.
            bounded = max(abs(theirs["min"]), abs(theirs["max"])) < 2 * theirs["std"]
            assert (float(ours.abs().max()) < 2 * float(ours.std())) == bounded, key
            if bounded:
                assert float(ours.abs().max()) == pytest.approx(max(-theirs["min"], theirs["max"]), rel=0.02), key


def test_initialisation_depends_on_the_seed_alone() -> None:
    def drawn(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return list(Detector(DetectorConfig()).state_dict().values())

    assert all(torch.equal(a, b) for a, b in zip(drawn(3), drawn(3), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(drawn(3), drawn(4), strict=True))
