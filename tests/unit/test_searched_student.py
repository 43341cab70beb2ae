"""What a student costs, and whether every architecture of a space can start from the weights that are given."""

from pathlib import Path

import pytest
import torch

from ocr_ray.config import CMLConfig, StudentConfig, load_config
from ocr_ray.errors import ConfigError
from ocr_ray.model_card import ModelCard, save_detector
from ocr_ray.models.detector import Detector
from ocr_ray.search.student import LATENCY, PARAMETERS, check_start_fits, costs_of, count_parameters
from ocr_ray.spaces import load_space, space_from_plain
from ocr_ray.typed import with_values

PROJECT = Path(__file__).resolve().parents[2]
SCALE, NECK = "student.detector.backbone.scale", "student.detector.neck.out_channels"


def test_the_references_student_has_as_many_parameters_as_it_is_said_to_have() -> None:
    assert count_parameters(StudentConfig().student.detector) == 603_418


def test_the_latency_of_a_student_is_measured_once_a_sweep_and_only_where_it_counts(tmp_path: Path) -> None:
    plain = with_values(StudentConfig(), {"sweep.latency_side": 64, SCALE: 0.25}, "test")
    assert costs_of(plain, tmp_path) == {PARAMETERS: count_parameters(plain.student.detector)}
    assert not list(tmp_path.iterdir())
    weighed = with_values(plain, {"sweep.against": "latency"}, "test")
    threads, drawn = torch.get_num_threads(), torch.get_rng_state()
    first = costs_of(weighed, tmp_path)
    assert first[LATENCY] > 0
    assert costs_of(weighed, tmp_path) == first  # not measured again, which would differ
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), drawn)
    costs_of(with_values(weighed, {SCALE: 0.35}, "test"), tmp_path)
    assert len(list((tmp_path / "latency").iterdir())) == 2


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "student.safetensors"
    save_detector(path, Detector(ModelCard().detector), ModelCard())
    return str(path)


def test_weights_of_another_width_are_told_in_one_line(weights: str) -> None:
    cfg = load_config(PROJECT / "configs" / "ppocrv3_det_student.yaml", [f"student.weights={weights}"])
    space = load_space(PROJECT / "search_spaces" / "student_pareto.yaml", cfg)
    with pytest.raises(ConfigError, match=rf"student_pareto.yaml: {SCALE}=0.25: student.weights fit one") as caught:
        check_start_fits(cfg, space)
    assert "\n" not in str(caught.value)
    check_start_fits(with_values(cfg, {"student.weights": None}, "test"), space)


def test_weights_may_leave_the_searched_part_new(weights: str) -> None:
    cfg = with_values(CMLConfig(), {"student.weights": weights, "student.may_be_new": ["neck", "head"]}, "test")
    check_start_fits(cfg, space_from_plain({NECK: {"choice": [48, 96]}}, cfg, "x.yaml"))
    check_start_fits(cfg, space_from_plain({"optim.lr": {"uniform": [0.1, 0.2]}}, cfg, "x.yaml"))
    with pytest.raises(ConfigError, match=rf"x.yaml: {SCALE}=0.35: student.weights fit one architecture alone"):
        check_start_fits(cfg, space_from_plain({SCALE: {"choice": [0.5, 0.35]}}, cfg, "x.yaml"))
