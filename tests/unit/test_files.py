from pathlib import Path

import pytest

from ocr_ray.errors import DataError, UserError
from ocr_ray.files import file_digest, inside, whole_file, whole_folder, write_text


def test_a_file_appears_when_the_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with whole_file(path) as aside:
        aside.write_text("half")
        assert not path.exists()
        assert aside.suffix == ".txt"
        aside.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_block_that_raises_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), whole_file(path) as aside:  # noqa: PT012
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fails", [False, True])
def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path, fails: bool) -> None:
    path = tmp_path / "set"
    path.mkdir()
    (path / "old").touch()
    try:
        with whole_folder(path) as aside:
            (aside / "new").touch()
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert [p.name for p in path.iterdir()] == (["old"] if fails else ["new"])
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written: Not a directory|cannot be written: File exists"):
        write_text(tmp_path / "file" / "a.txt", "x")


@pytest.mark.parametrize("path", ["../x.jpg", "a/../../x.jpg", "/etc/passwd"])
def test_a_path_that_leaves_its_root_is_refused(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(DataError, match=r"label\.txt:3: path .* leaves the folder"):
        inside(root, path, "label.txt:3")
    assert inside(root, "sub/x.jpg", "s") == root / "sub" / "x.jpg"


def test_a_folder_that_is_a_link_to_another_disk_is_the_owners(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    (root / "images").symlink_to(elsewhere)
    assert inside(root, "images/x.jpg", "s") == root / "images" / "x.jpg"
    with pytest.raises(DataError, match="leaves the folder"):
        inside(root, "images/../x.jpg", "s")  # beside `elsewhere`, once the link is followed


def test_the_digest_is_sha256(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert file_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_whole_file_can_be_read_by_whoever_may_read_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with whole_file(tmp_path / "x.bin") as aside:
        aside.touch(mode=0o600)
        aside.write_bytes(b"x")
    assert (tmp_path / "x.bin").stat().st_mode == (tmp_path / "plain").stat().st_mode
