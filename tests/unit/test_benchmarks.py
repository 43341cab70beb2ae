import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import SUBJECTS, plain, table
from benchmarks.boxes import SIDE, kernels, probability_map
from benchmarks.pictures import find_pictures
from benchmarks.pipeline import hundred_quads
from benchmarks.rows import Row
from benchmarks.timing import alternate
from ocr_ray.postprocess import PostprocessConfig, boxes_from_map

PROJECT = Path(__file__).resolve().parents[2]


def test_a_row_says_whether_its_target_is_met() -> None:
    assert Row("a", 2.0, 3.0, "x", "").met is True
    assert Row("a", 3.5, 3.0, "x", "").met is False
    assert Row("a", 3.5, None, "x", "").met is None
    assert Row("a", None, 3.0, "x", "").met is None


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
