import json
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from ocr_ray.data.check import check_labels, check_samples
from ocr_ray.data.check_report import CheckReport
from ocr_ray.data.labels import format_line, read_labels
from ocr_ray.errors import DataError

WORD = np.array([[5, 5], [45, 5], [45, 20], [5, 20]])
CROSSED = np.array([[5, 5], [45, 25], [45, 5], [5, 20]])


class Folder:
    """A label file that grows by one picture of 64x48 pixels at a time."""

    def __init__(self, path: Path, name: str = "train") -> None:
        self.path, self.name, self.lines = path, name, list[str]()
        (path / name).mkdir()

    def add(self, polygons: list[NDArray[np.int64]], texts: list[str], content: bytes | None = None) -> None:
        name = f"{self.name}/{len(self.lines)}.png"
        if content is None:
            noise = np.random.default_rng(len(self.lines) + 1000 * len(self.name)).integers(0, 256, (48, 64, 3))
            content = cv2.imencode(".png", noise.astype(np.uint8))[1].tobytes()
        if content:
            (self.path / name).write_bytes(content)
        self.lines.append(format_line(name, polygons, texts))

    def file(self) -> Path:
        file = self.path / f"{self.name}_label.txt"
        file.write_text("".join(f"{line}\n" for line in self.lines))
        return file


def kinds(report: CheckReport) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for f in report.findings:
        found.setdefault(f"{f.severity}: {f.kind}", []).append(Path(f.where).name)
    return found


def shown(report: CheckReport) -> str:
    console = Console(width=400, record=True, file=StringIO())
    console.print(report.text())
    return console.export_text()


@pytest.fixture
def train(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    for i in range(100):
        folder.add([WORD, np.add(WORD, (10, 22))], ["word", "###" if i % 2 else "other"])
    return folder


def test_a_good_set_is_said_to_be_good(train: Folder) -> None:
    report = check_labels([train.file()])
    assert report.findings == ()
    assert not report.would_drop
    (counts,) = report.sets
    assert (counts.images, counts.boxes, counts.ignored, counts.legible) == (100, 200, 50, 150)
    assert counts.sides == (0, 150, 0, 0, 0, 0)  # 40x15 pixels
    assert report.one_line() == "train 100 images, 150 legible and 50 ignored boxes; nothing wrong was found"
    assert "nothing would be dropped" in shown(report)


def test_everything_wrong_is_found_where_it_is(train: Folder, tmp_path: Path) -> None:
    train.add([WORD], ["[01]"], content=b"")  # line 101: not there
    train.add([WORD], ["word"], content=b"no picture")
    train.add([np.array([[5, 5], [45, 5], [45, 5], [5, 5]])], ["flat"])
    train.add([CROSSED], ["crossed"])
    train.add([WORD + 100], ["outside"])
    train.add([np.add(WORD, (30, 0))], ["across"])
    train.add([WORD], ["###"])
    train.add([], [])
    train.add([WORD], ["twice"], content=(tmp_path / "train/3.png").read_bytes())
    train.lines.append("train/0.png\t[{]")
    val = Folder(tmp_path, "val")
    val.add([CROSSED], ["crossed"])
    val.add([WORD], ["leak"], content=(tmp_path / "train/4.png").read_bytes())
    report = check_labels([train.file()], [val.file()])
    assert kinds(report) == {
        "dropped: label lines that cannot be used": ["train_label.txt:110"],
        "dropped: pictures that cannot be read": ["train_label.txt:101", "train_label.txt:102"],
        "dropped: polygons without area": ["train_label.txt:103"],
        "dropped: polygons outside their picture": ["train_label.txt:105"],
        "dropped: polygons that cross or touch themselves": ["val_label.txt:1"],
        "warning: polygons that cross or touch themselves": ["train_label.txt:104"],
        "warning: polygons partly outside their picture": ["train_label.txt:106"],
        "warning: pictures twice in train": ["train_label.txt:109"],
        "warning: pictures both in train and in val": ["val_label.txt:2"],
        "info: images with ignored text only": ["train_label.txt:107"],
        "info: images without text, used as negatives": ["train_label.txt:108"],
    }
    assert report.would_drop
    severities = [f.severity for f in report.findings]
    assert severities == sorted(severities, key=["dropped", "warning", "info"].index)
    text = shown(report)
    assert "something would be dropped" in text
    assert f"{train.path}/train_label.txt:110: labels are not JSON" in text
    assert f"{train.path}/train_label.txt:101: {train.path}/train/100.png cannot be read: No such file" in text


def test_more_than_a_few_places_are_counted_not_listed(train: Folder) -> None:
    for _ in range(9):
        train.add([WORD], ["word"], content=b"no picture")
    text = shown(check_labels([train.file()]))
    assert "dropped: pictures that cannot be read: 9" in text
    assert "and 4 more" in text


def test_the_short_check_finds_what_needs_no_pixels(train: Folder, tmp_path: Path) -> None:
    train.add([WORD], ["word"], content=b"")
    train.add([WORD + 100], ["outside"])
    val = Folder(tmp_path, "val")
    val.add([WORD], ["leak"], content=(tmp_path / "train/4.png").read_bytes())
    report = check_samples(read_labels(train.file()), read_labels(val.file()))
    assert kinds(report) == {
        "dropped: pictures that cannot be read": ["100.png"],
        "dropped: polygons outside their picture": ["101.png"],
        "warning: pictures both in train and in val": ["0.png"],
    }
    line = report.one_line()
    assert line.startswith("train 102 images, 152 legible and 50 ignored boxes; val 1 images")
    assert "pictures that cannot be read (train/100.png: " in line
    assert line.endswith("`ocr-ray data check` tells all")
    assert "\n" not in line


def test_the_short_check_looks_for_what_two_of_four_sets_share(train: Folder, tmp_path: Path) -> None:
    keep, test = Folder(tmp_path, "keep"), Folder(tmp_path, "test")
    keep.add([WORD], ["old"], content=b"another picture")
    test.add([WORD], ["leak"], content=(tmp_path / "train/4.png").read_bytes())
    test.add([WORD], ["old"], content=b"another picture")
    report = check_samples(*(read_labels(folder.file()) for folder in (train, train, keep, test)))
    found = {f.kind: f.where for f in report.findings if "both" in f.kind}
    assert {k: v for k, v in found.items() if "test" in k} == {
        "pictures both in train and in test": "test/0.png",
        "pictures both in keep and in test": "test/1.png",
    }
    assert "keep 1 images" in report.one_line()


def test_a_set_on_which_nothing_can_be_learned_is_a_warning(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.add([WORD], ["###"])
    file = folder.file()
    assert "warning: label files without legible text" in kinds(check_labels([file]))
    found = kinds(check_samples(read_labels(file)))
    assert "warning: sets without legible text" in found
    assert "warning: small training sets" in found


def test_a_jpeg_that_is_turned_by_its_exif_data_is_measured_as_it_is_shown(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.add([WORD], ["word"], content=exif_turned(np.zeros((48, 64, 3), np.uint8)))
    folder.lines[0] = folder.lines[0].replace(json.dumps(WORD.tolist()), "[[5, 50], [20, 50], [20, 60], [5, 60]]")
    file = folder.file()
    assert "dropped" not in " ".join(kinds(check_labels([file])))  # 48 wide, 64 high
    assert "partly" not in " ".join(kinds(check_samples(read_labels(file))))


def exif_turned(image: NDArray[np.uint8]) -> bytes:
    """A JPEG whose EXIF data say: turn by a quarter."""
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    tiff = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + b"\0\0\0\0"
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]


def test_label_files_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        check_labels([tmp_path / "none.txt"])
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="holds no label line"):
        check_labels([tmp_path / "empty.txt"])


def test_progress_is_told(train: Folder) -> None:
    told: list[tuple[int, int]] = []
    check_labels([train.file()], on_progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 100) for i in range(1, 101)]
