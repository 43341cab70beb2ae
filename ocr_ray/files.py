"""Files that appear whole or not at all, digests, and paths kept inside a root."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ocr_ray.errors import DataError, UserError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to, and renames it to `path` when the block ends well.

    Folders above are made. When the block raises, nothing is left behind and an older `path` stays as it was.
    Raises: UserError when the folder cannot be written to, or `path` is a folder itself.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected a file to write")
    aside = _aside(path)
    try:
        aside.touch()
        mode = aside.stat().st_mode  # as anybody's new file; some writers make one that only its owner can read
        aside.unlink()
        yield aside
        aside.chmod(mode)
        with aside.open("rb") as written:
            os.fsync(written.fileno())  # else a power cut may leave the new name on an empty file
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Like `whole_file` for a folder; an older folder of that name is replaced."""
    aside = _aside(path)
    aside.mkdir()
    try:
        yield aside
        if path.exists():
            old = _aside(path)
            path.replace(old)
            aside.replace(path)
            shutil.rmtree(old)
        else:
            aside.replace(path)
    finally:
        if aside.exists():
            shutil.rmtree(aside)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8 to `path`, whole or not at all. Raises: UserError as `whole_file`."""
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def file_digest(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def inside(root: Path, relative: str, source: str) -> Path:
    """`root / relative`, which must lie in `root`. Links below `root` are its owner's and may lead anywhere.

    Raises: DataError naming `source` (a file and line) when the path leaves `root`: it is absolute and elsewhere, or
        its `..` climb out, also by way of a link.
    """
    path = root / relative
    climbs = ".." in Path(relative).parts
    if not (path.resolve().is_relative_to(root.resolve()) if climbs else path.is_relative_to(root)):
        raise DataError(f"{source}: path {relative!r} leaves the folder {root}")
    return path


def _aside(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    except OSError as e:
        raise UserError(f"{path}: cannot be written: {e.strerror}") from e
    os.close(handle)
    aside = Path(name)
    aside.unlink()
    return aside
