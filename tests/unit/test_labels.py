import json
from pathlib import Path

import numpy as np
import pytest

from ocr_ray.data.labels import Sample, data_digest, format_line, read_label_files, read_labels
from ocr_ray.errors import ConfigError, DataError

BOX = {"transcription": "word", "points": [[1, 2], [30, 2], [30, 12], [1, 12]]}


def written(folder: Path, *lines: str | bytes, name: str = "train_label.txt") -> Path:
    file = folder / name
    file.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines) + b"\n")
    return file


def line(*boxes: object, path: str = "img/1.jpg") -> str:
    return f"{path}\t{json.dumps(list(boxes), ensure_ascii=False)}"


def test_a_line_becomes_a_sample(tmp_path: Path) -> None:
    illegible = {**BOX, "transcription": "###"}
    star = {**BOX, "transcription": "*", "points": [*BOX["points"], [0.5, 7]], "difficult": True}
    (sample,) = read_labels(written(tmp_path, line(BOX, illegible, star)))
    assert sample.image == tmp_path / "img/1.jpg"
    assert sample.name == "img/1.jpg"
    assert sample.texts == ("word", "###", "*")
    assert sample.ignore.tolist() == [False, True, True]
    assert [p.shape for p in sample.polygons] == [(4, 2), (4, 2), (5, 2)]
    assert sample.polygons[0].dtype == np.float32
    assert sample.polygons[2][4].tolist() == [0.5, 7]


def test_an_image_without_text_is_a_sample(tmp_path: Path) -> None:
    (sample,) = read_labels(written(tmp_path, line()))
    assert sample.polygons == ()
    assert sample.ignore.shape == (0,)


def test_mark_line_ends_blank_lines_and_further_fields_are_tolerated(tmp_path: Path) -> None:
    # U+2028 counts as a line end in Python's splitlines(), but not in a label file.
    odd = {**BOX, "transcription": "two\u2028lines"}
    file = written(tmp_path, b"\xef\xbb\xbf" + line(odd).encode() + b"\r", "", "  ", line(path="b.jpg") + "\textra")
    first, second = read_labels(file)
    assert first.texts == ("two\u2028lines",)
    assert second.image == tmp_path / "b.jpg"


def test_images_lie_relative_to_the_root(tmp_path: Path) -> None:
    file = written(tmp_path, line(BOX))
    assert read_labels(file, tmp_path / "elsewhere")[0].image == tmp_path / "elsewhere/img/1.jpg"


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ("img/1.jpg []", "no tab between path and labels"),
        ("\t[]", "the path is empty"),
        ("img\0.jpg\t[]", "NUL byte"),
        ("../1.jpg\t[]", "leaves the folder"),
        ("/etc/passwd\t[]", "leaves the folder"),
        ('["a.jpg", "b.jpg"]\t[]', "a list of paths is not supported"),
        ('a.jpg\t[{"transcription": "x"', "labels are not JSON: Expecting ',' delimiter at character"),
        ("a.jpg\t" + "[" * 100_000, "labels are not JSON that can be read"),
        ("a.jpg\t[1" + "0" * 5000 + "]", "labels are not JSON that can be read"),
        ("a.jpg\t{}", "labels are an object, expected a list of boxes"),
        ("a.jpg\tnull", "labels are null, expected a list of boxes"),
        ("a.jpg\t[3]", "box 1 is a number, expected an object"),
        ('a.jpg\t[{"points": []}]', "box 1 has no 'transcription'"),
        ('a.jpg\t[{"transcription": "x"}]', "box 1 has no 'points'"),
        (line(BOX, {**BOX, "transcription": 12}), "transcription of box 2 is a number, expected a text"),
        (line({**BOX, "points": "abc"}), "points of box 1 are a text, expected a list of [x, y]"),
        (line(BOX, BOX, {**BOX, "points": [[1, 2], [3, 4]]}), "polygon 3 has 2 points, expected at least 4"),
        (line({**BOX, "points": [[1, 2], [3, 4], [5], [6, 7]]}), "point 3 of polygon 1 is [5], expected [x, y]"),
        (line({**BOX, "points": [[1, 2], [3, 4], [5, 6], [True, 7]]}), "point 4 of polygon 1 is [true, 7]"),
        (line({**BOX, "points": [[1, 2], [3, 4], [5, 6], ["6", 7]]}), 'point 4 of polygon 1 is ["6", 7]'),
        (line({**BOX, "points": [[1, 2], [3, 4], [5, 6], [float("nan"), 7]]}), "point 4 of polygon 1 is [NaN, 7]"),
        (line({**BOX, "points": [[1, 2], [3, 4], [5, 6], [float("inf"), 7]]}), "is [Infinity, 7]"),
        (line({**BOX, "points": [[1, 2], [3, 4], [5, 6], [10**400, 7]]}), "point 4 of polygon 1 is [1000"),
        (b'a.jpg\t[{"transcription": "\xff"}]', "not UTF-8 at byte 27 of the line"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, bad: str | bytes, expected: str) -> None:
    file = written(tmp_path, line(BOX), "", bad)
    with pytest.raises(DataError) as raised:
        read_labels(file)
    message = str(raised.value)
    assert message.startswith(f"{file}:3: ")
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b"\n \n\r\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "empty.txt"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"empty\.txt: holds no label line"):
        read_labels(file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt: cannot be read: No such file"):
        read_labels(tmp_path / "none.txt")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_labels(tmp_path)


def test_a_link_leads_where_its_owner_wants_but_not_upwards(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link").symlink_to(tmp_path / "outside")
    (sample,) = read_labels(written(tmp_path / "set", line(BOX, path="link/1.jpg")))
    assert sample.image == tmp_path / "set" / "link" / "1.jpg"
    with pytest.raises(DataError, match="leaves the folder"):
        read_labels(written(tmp_path / "set", line(BOX, path="link/../1.jpg")))


def test_ratios_choose_the_same_share_each_time(tmp_path: Path) -> None:
    one = written(tmp_path, *(line(BOX, path=f"{i}.jpg") for i in range(40)), name="one.txt")
    two = written(tmp_path, *(line(BOX, path=f"t{i}.jpg") for i in range(10)), name="two.txt")
    everything = [s.name for s in read_label_files([one, two])]
    assert everything == [f"{i}.jpg" for i in range(40)] + [f"t{i}.jpg" for i in range(10)]
    chosen = [s.name for s in read_label_files([one, two], [0.3, 1.0], seed=1)]
    assert len(chosen) == 12 + 10
    assert chosen == sorted(chosen, key=everything.index)
    assert chosen == [s.name for s in read_label_files([one, two], [0.3, 1.0], seed=1)]
    assert chosen != [s.name for s in read_label_files([one, two], [0.3, 1.0], seed=2)]


def test_ratios_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path, line(BOX))
    with pytest.raises(ConfigError, match="2 given for 1 label files"):
        read_label_files([file], [0.5, 0.5])
    with pytest.raises(ConfigError, match=r"1\.5 for .*, expected a number in \(0, 1\]"):
        read_label_files([file], [1.5])
    with pytest.raises(DataError, match=r"ratio 0\.1 keeps none of its 1 samples"):
        read_label_files([file], [0.1])


def test_the_digest_follows_names_and_labels_but_not_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    here = read_labels(written(tmp_path / "a", line(BOX)))
    assert data_digest(here) == data_digest(read_labels(written(tmp_path / "b", line(BOX))))
    moved = {**BOX, "points": [[1, 2], [31, 2], [30, 12], [1, 12]]}
    assert data_digest(here) != data_digest(read_labels(written(tmp_path / "b", line(moved))))
    renamed = line({**BOX, "transcription": "###"})
    assert data_digest(here) != data_digest(read_labels(written(tmp_path / "b", renamed)))


def test_the_photographs_labels_survive_a_round_trip(data_dir: Path) -> None:
    file = data_dir / "icdar2015" / "train_label.txt"
    samples = read_labels(file)
    assert "".join(f"{format_line(s.name, s.polygons, s.texts)}\n" for s in samples) == file.read_text("utf-8")


def test_a_path_with_a_tab_cannot_be_written() -> None:
    with pytest.raises(DataError, match="cannot stand in a label file"):
        format_line("a\tb.jpg", [], [])


def test_samples_have_their_own_identity(tmp_path: Path) -> None:
    one, same = (read_labels(written(tmp_path, line(BOX)))[0] for _ in range(2))
    assert one != same  # arrays have no single truth to compare by
    assert isinstance(one, Sample)
