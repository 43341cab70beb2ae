import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import SUBJECTS, plain, table
from benchmarks.boxes import SIDE, kernels, probability_map
from benchmarks.interpolation import Difference, clearest, differences, panels
from benchmarks.pictures import find_pictures
from benchmarks.pipeline import hundred_quads
from benchmarks.rows import Row
from benchmarks.timing import alternate
from ocr_ray.data.augment import AugmentConfig
from ocr_ray.data.dataset import TrainDataset
from ocr_ray.data.labels import read_labels
from ocr_ray.postprocess import PostprocessConfig, boxes_from_map

PROJECT = Path(__file__).resolve().parents[2]


def test_a_row_says_whether_its_target_is_met() -> None:
    assert Row("a", 2.0, 3.0, "x", "").met is True
    assert Row("a", 3.5, 3.0, "x", "").met is False
    assert Row("a", 3.5, None, "x", "").met is None
    assert Row("a", None, 3.0, "x", "").met is None


def test_a_row_says_why_its_target_is_missed_and_only_then() -> None:
    missed = Row("a", 2.0, 1.0, "s", "how").with_reason("the warp alone takes 2 s")
    assert plain(missed)["how"].startswith("how; missed: the warp alone takes 2 s; ")  # type: ignore[attr-defined]
    for value, target in ((1.0, 1.0), (2.0, None), (None, 1.0)):
        assert Row("a", value, target, "s", "how").with_reason("never said").how == "how"


def test_rows_have_the_pinned_keys_and_are_drawn() -> None:
    row = Row("a", 2.0, 3.0, "x imread", "how", reference=9.0)
    told = plain(row)
    assert list(told) == ["name", "value", "target", "met", "unit", "how"]
    assert "reference: 9" in str(told["how"])
    assert table([row, Row("b", None, None, "", "failed")], "").row_count == 2


def test_sides_alternate_and_the_least_counts() -> None:
    order: list[tuple[str, int]] = []
    clock = iter(range(1000))
    sides = {"one": lambda key: order.append(("one", key)), "other": lambda key: order.append(("other", key))}
    seconds = alternate(sides, 2, 3, lambda: float(next(clock)))
    assert order == [("one", 0), ("other", 0), ("one", 1), ("other", 1)] * 3
    np.testing.assert_array_equal(seconds["one"], [1, 1])


def test_subjects_have_names_of_their_own() -> None:
    assert len({subject.name for subject in SUBJECTS}) == len(SUBJECTS)


def test_the_map_holds_300_boxes() -> None:
    probability = probability_map(kernels(SIDE, np.random.default_rng(1)))
    assert len(boxes_from_map(probability, PostprocessConfig(), SIDE, SIDE)) == 300


def test_hundred_quads_lie_in_the_picture() -> None:
    quads = np.array(hundred_quads(1280, 720, np.random.default_rng(1)))
    assert quads.shape == (100, 4, 2)
    assert (quads >= 0).all()
    assert (quads < (1280, 720)).all()


def test_without_photographs_pictures_are_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCR_RAY_DATA", str(tmp_path / "absent"))
    pictures = find_pictures(1, tmp_path)
    assert len(pictures.samples) == 1
    assert "RENDERED" in pictures.what


def test_the_chain_of_steps_shows_what_one_warp_shows(small_set: Path) -> None:
    dataset = TrainDataset(read_labels(small_set / "train_label.txt")[:2], AugmentConfig(crop_width=96), None, seed=0)
    warp, moved, device = differences(dataset)
    assert warp.levels.sum() == moved.levels.sum() > 0
    of_warp, of_moved, of_device = ((d.levels * np.arange(256)).sum() for d in (warp, moved, device))
    assert of_device < 0.2 * of_warp < 0.1 * of_moved
    assert panels(dataset.drawn((0, clearest(dataset)))).shape[2] == 3


def test_a_difference_is_told_in_levels() -> None:
    levels = np.zeros(256, np.int64)
    levels[[0, 3, 200]] = 98, 1, 1
    assert Difference("a", levels).line == "a: mean 2.0300, median 0, 99 % 3, max 200"


def test_the_command_writes_its_rows(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--quick",
        "--only",
        "student_step",
        "--json",
        str(tmp_path / "rows"),
    ]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "rows").read_text())
    assert row["value"] > 0
    assert row["met"] is (row["value"] <= row["target"])
