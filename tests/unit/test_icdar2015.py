from pathlib import Path

import pytest

from ocr_ray.data.icdar2015 import convert_icdar2015
from ocr_ray.data.labels import read_labels
from ocr_ray.errors import DataError

LINE = "377,117,463,117,465,130,378,130,Genaxis Theatre"


def official(folder: Path, truths: dict[int, bytes]) -> tuple[Path, Path]:
    """Folders as they come out of the official archives; the images' bytes are not looked at."""
    images, gt = folder / "ch4_training_images", folder / "ch4_training_localization_transcription_gt"
    images.mkdir()
    gt.mkdir()
    for number, content in truths.items():
        (images / f"img_{number}.jpg").write_bytes(b"")
        (gt / f"gt_img_{number}.txt").write_bytes(content)
    return images, gt


def test_folders_become_a_label_file(tmp_path: Path) -> None:
    images, gt = official(
        tmp_path,
        {
            10: b"\xef\xbb\xbf" + f"{LINE}\r\n0,1,20,1,20,9,0,9,###\r\n".encode(),
            2: "\ufeff".encode() + b"0,1,20,1,20,9,0,9,a, b,,c\n",
            1: "\u00ef\u00bb\u00bf0,1,20,1,20,9,0,9, \u6f22".encode(),
            3: b"\xef\xbb\xbf\r\n",
        },
    )
    conversion = convert_icdar2015(images, gt, tmp_path / "train_label.txt")
    assert (conversion.images, conversion.boxes, conversion.ignored) == (4, 4, 1)
    assert str(conversion) == f"{tmp_path}/train_label.txt: 4 images, 4 boxes, 1 of them ignored"
    samples = read_labels(tmp_path / "train_label.txt")
    assert [s.name for s in samples] == [f"ch4_training_images/img_{i}.jpg" for i in (1, 2, 3, 10)]
    assert [s.texts for s in samples] == [(" \u6f22",), ("a, b,,c",), (), ("Genaxis Theatre", "###")]
    assert samples[3].polygons[0].tolist() == [[377, 117], [463, 117], [465, 130], [378, 130]]


def test_the_photographs_labels_come_back(data_dir: Path, tmp_path: Path) -> None:
    """Official files written back from the label file give that label file."""
    file = data_dir / "icdar2015" / "val_label.txt"
    (tmp_path / "val").mkdir()
    (tmp_path / "gt").mkdir()
    for sample in read_labels(file):
        (tmp_path / sample.name).write_bytes(b"")
        lines = (
            ",".join([*(str(int(v)) for v in polygon.ravel()), text])
            for polygon, text in zip(sample.polygons, sample.texts, strict=True)
        )
        content = "\ufeff" + "\r\n".join(lines) + "\r\n"
        (tmp_path / "gt" / f"gt_{Path(sample.name).stem}.txt").write_text(content, "utf-8", newline="")
    convert_icdar2015(tmp_path / "val", tmp_path / "gt", tmp_path / "val_label.txt")
    assert (tmp_path / "val_label.txt").read_text("utf-8") == file.read_text("utf-8")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"1,2,3,4,5,6,7,8", r"gt_img_1\.txt:1: 8 fields, expected 8 coordinates and a text"),
        (LINE.encode() + b"\nx,2,3,4,5,6,7,8,a", r"gt_img_1\.txt:2: expected 8 coordinates and a text, found 'x,2,3"),
        (b"nan,2,3,4,5,6,7,8,a", r"gt_img_1\.txt:1: coordinates beyond"),
        (b"1e9,2,3,4,5,6,7,8,a", r"gt_img_1\.txt:1: coordinates beyond"),
        (LINE.encode() + b"\xff", r"gt_img_1\.txt: not UTF-8 at byte 48"),
    ],
)
def test_a_bad_file_is_named_and_nothing_written(tmp_path: Path, content: bytes, expected: str) -> None:
    images, gt = official(tmp_path, {1: content})
    with pytest.raises(DataError, match=expected):
        convert_icdar2015(images, gt, tmp_path / "label.txt")
    assert not (tmp_path / "label.txt").exists()


def test_counterparts_must_be_there(tmp_path: Path) -> None:
    images, gt = official(tmp_path, {1: LINE.encode(), 2: LINE.encode()})
    (images / "img_2.jpg").unlink()
    with pytest.raises(DataError, match=r"gt_img_2\.txt: there is no img_2\.jpg in"):
        convert_icdar2015(images, gt, tmp_path / "label.txt")
    (gt / "gt_img_2.txt").unlink()
    (images / "img_30.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"img_30\.jpg: there is no gt_img_30\.txt in"):
        convert_icdar2015(images, gt, tmp_path / "label.txt")


def test_folders_must_be_there_and_below_the_label_file(tmp_path: Path) -> None:
    images, gt = official(tmp_path, {1: LINE.encode()})
    with pytest.raises(DataError, match="none: cannot be read as a folder: No such file"):
        convert_icdar2015(images, tmp_path / "none", tmp_path / "label.txt")
    with pytest.raises(DataError, match=r"holds no gt_img_N\.txt"):
        convert_icdar2015(images, images, tmp_path / "label.txt")
    with pytest.raises(DataError, match=r"img_1\.jpg: does not lie below .*labels, where the label file is to be"):
        convert_icdar2015(images, gt, tmp_path / "labels" / "label.txt")
