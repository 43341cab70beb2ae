"""The few pictures of a run that MLflow shows by epoch: which, when, how large, under which names."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from ocr_ray.data.images import read_image
from ocr_ray.data.labels import Sample, read_labels
from ocr_ray.engine.evaluate import ImageResult
from ocr_ray.metrics import MatchCounts
from ocr_ray.postprocess import Detection
from ocr_ray.sketches import FOLDER, MOST_EVALUATIONS, Sketches, file_name
from ocr_ray.visualize import within


@pytest.fixture(scope="module")
def samples(small_set: Path) -> list[Sample]:
    return read_labels(small_set / "train_label.txt")


def see_all(sketches: Sketches, samples: list[Sample], student: str = "Student") -> None:
    box = np.array([[10, 10], [60, 10], [60, 40], [10, 40]], np.float32)
    for sample in samples:
        found = [Detection(box, 0.9)]
        sketches.see(student, ImageResult(sample, found, MatchCounts(), np.zeros((32, 32), np.float32)))


def test_a_fixed_few_are_drawn_with_what_was_found_and_a_smaller_copy(samples: list[Sample], tmp_path: Path) -> None:
    sketches = Sketches(tmp_path, samples, epochs=10, count=4)
    see_all(sketches, samples)
    see_all(sketches, samples[:1], "Student2")
    files = sketches.draw("Student", 1, best=False)
    assert len(files) == 8
    names = [path.name for path in files]
    stems = [samples[i].image.stem for i in (0, 3, 6, 9)]
    assert [re.sub(r"\+timestamp.*", "", name) for name in names[::2]] == [
        f"val~{number} {stem}+step+1" for number, stem in enumerate(stems, start=1)
    ]
    assert names[1::2] == [name.replace(".jpg", "+compressed.jpg") for name in names[::2]]
    drawn, plain = read_image(files[0]), read_image(samples[0].image)
    assert drawn.shape == plain.shape
    changed = np.abs(drawn.astype(int) - plain).sum(2)
    assert changed[10, 12:58].mean() > 100  # the box's upper edge
    assert np.median(changed) < 30  # JPEG alone


def test_the_first_the_last_and_new_bests_that_lie_apart_are_drawn(samples: list[Sample], tmp_path: Path) -> None:
    drawn = []
    for attempt in (range(1, 21), range(15, 41)):  # a resume repeats some, and knows what was drawn
        sketches = Sketches(tmp_path, samples[:2], epochs=40, count=1)
        for epoch in attempt:
            see_all(sketches, samples[:2])
            if sketches.draw("Student", epoch, best=epoch != 6):
                drawn.append(epoch)
    assert drawn == [1, 7, 12, 17, 22, 27, 32, 37, 40]
    assert len(drawn) <= MOST_EVALUATIONS
    assert len(list((tmp_path / FOLDER).iterdir())) == 2 * len(drawn)


def test_nothing_is_kept_of_an_evaluation_that_is_not_drawn(samples: list[Sample], tmp_path: Path) -> None:
    sketches = Sketches(tmp_path, samples, epochs=10, count=2)
    see_all(sketches, samples)
    assert sketches.draw("Student", 1, best=True)
    assert sketches.draw("Student", 10, best=True) == []  # nothing was seen since


def test_more_than_there_are_and_a_picture_that_is_gone(samples: list[Sample], tmp_path: Path) -> None:
    gone = Sample(tmp_path / "gone.jpg", (), np.zeros(0, np.bool_), ())
    some = [samples[0], gone]
    sketches = Sketches(tmp_path, some, epochs=2, count=9)
    see_all(sketches, some)
    assert len(sketches.draw("Student", 1, best=True)) == 2


def test_large_pictures_are_reduced_with_their_regions(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), np.zeros((300, 2000, 3), np.uint8))
    sample = Sample(path, (), np.zeros(0, np.bool_), ())
    sketches = Sketches(tmp_path, [sample], epochs=2, count=1)
    box = np.array([[1000, 100], [1900, 100], [1900, 200], [1000, 200]], np.float32)
    sketches.see("Student", ImageResult(sample, [Detection(box, 0.9)], MatchCounts(), np.zeros((1, 1), np.float32)))
    full, small = (read_image(path) for path in sketches.draw("Student", 1, best=True))
    assert full.shape == (96, 640, 3)
    assert small.shape == (38, 256, 3)
    rows, columns = np.nonzero(full.sum(2) > 100)
    assert (abs(columns.min() - 320) <= 2, abs(columns.max() - 608) <= 2) == (True, True)
    assert (abs(rows.min() - 32) <= 2, abs(rows.max() - 64) <= 2) == (True, True)


def test_names_are_such_as_mlflow_writes() -> None:
    name = file_name("val/1 a+b%ü", 7, 1.5)
    assert re.fullmatch(r"val~1 a_b__\+step\+7\+timestamp\+1500\+[0-9a-f-]{36}", name)


def test_within_leaves_small_pictures() -> None:
    image = np.zeros((10, 20, 3), np.uint8)
    assert within(image, 20)[0] is image
    assert within(image, 10)[0].shape == (5, 10, 3)
