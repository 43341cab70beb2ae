"""The store of a teacher's answers: files of a few kilobytes a picture that all trials of a sweep read.

A piece holds the answers to the next `PIECE` pictures of one turn through the samples, in the order of that turn, so
that a run reads each piece once. It is a Parquet file: compressed, every page with a checksum, and either whole or
absent. Pieces lie in a local folder or, by a URI such as `s3://bucket/folder`, on any of pyarrow's file systems.
"""

import contextlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ocr_ray.data.batch import Key
from ocr_ray.data.dataset import turn_order
from ocr_ray.errors import ConfigError
from ocr_ray.files import whole_file

PIECE = 32
"""Pictures a piece. A run waits for its first piece, and the last one it asks for may go unused."""


@dataclass(frozen=True)
class Piece:
    """Part `number` of turn `turn`, both from 0."""

    turn: int
    number: int

    @property
    def name(self) -> str:
        """Of its file, below the store's folder."""
        return f"turn-{self.turn:07d}/{self.number:06d}.parquet"


@dataclass(frozen=True, eq=False)
class Answer:
    """A teacher's answer: its `bits` `(bytes,)` uint8, and the fingerprint of the `picture` that it was given to."""

    picture: int
    bits: Tensor


class BrokenPiece(Exception):
    """A file that is there but is not the piece whose name it has: cut, changed, or of other pictures."""


class Turns:
    """Where in the store the picture of a key lies.

    Args: seed and num_samples are those of the `TrainSampler` whose keys are asked for.
    """

    def __init__(self, seed: int, num_samples: int) -> None:
        self._seed, self._num_samples = seed, num_samples
        self._places: dict[int, dict[int, int]] = {}

    def piece_of(self, key: Key) -> Piece:
        """The piece that holds the answer to `key`."""
        turn, index = key
        if turn not in self._places:
            order = turn_order(self._seed, turn, self._num_samples)
            if len(self._places) > 1:  # a batch may span two turns, not more
                self._places.pop(min(self._places))
            self._places[turn] = {int(sample): place for place, sample in enumerate(order)}
        return Piece(turn, self._places[turn][index] // PIECE)

    def keys_of(self, piece: Piece) -> list[Key]:
        """The keys of a piece, in its order; fewer than `PIECE` at a turn's end."""
        order = turn_order(self._seed, piece.turn, self._num_samples)
        return [(piece.turn, int(i)) for i in order[piece.number * PIECE : (piece.number + 1) * PIECE]]

    def piece_at(self, place: int) -> Piece:
        """The piece of the picture that comes after `place` others, over all turns."""
        turn, at = divmod(place, self._num_samples)
        return Piece(turn, at // PIECE)

    def after(self, piece: Piece) -> Piece:
        """The piece that a run needs next."""
        last = (piece.number + 1) * PIECE >= self._num_samples
        return Piece(piece.turn + 1, 0) if last else Piece(piece.turn, piece.number + 1)


class TeacherStore:
    """The pieces of one teacher on one data set: what makes another answer is in `digest`, so in another folder.

    Args: place is a folder or a URI that pyarrow knows; digest names the folder in it.
    Raises: ConfigError for a URI that pyarrow does not understand.
    """

    def __init__(self, place: str, digest: str) -> None:
        self.place, self.digest = place, digest
        self._files, root = file_system(place)
        self._local = isinstance(self._files, pafs.LocalFileSystem)
        self._folder = PurePosixPath(root) / digest

    def holds(self, piece: Piece) -> bool:
        """Whether there is a file of that piece; `read` tells whether it can be used."""
        return bool(self._files.get_file_info(self._path(piece)).type == pafs.FileType.File)

    def read(self, piece: Piece, keys: Sequence[Key]) -> list[Answer] | None:
        """The answers to the `keys` of a piece, in their order; None where it is not there.

        Raises: BrokenPiece for a file that is not what was written.
        """
        try:
            with self._files.open_input_file(self._path(piece)) as file:
                table = pq.ParquetFile(file, page_checksum_verification=True).read(use_threads=False)
            indices, pictures, answers = (table[name].to_pylist() for name in ("index", "picture", "answer"))
        except FileNotFoundError:
            return None
        except (pa.ArrowException, OSError, ValueError, KeyError) as e:
            raise BrokenPiece(f"{self._path(piece)}: {e}") from e
        if indices != [index for _, index in keys] or len({len(answer) for answer in answers}) != 1:
            raise BrokenPiece(f"{self._path(piece)}: holds the answers to other pictures")
        bits = torch.from_numpy(np.frombuffer(b"".join(answers), np.uint8).reshape(len(keys), -1).copy())
        return [Answer(picture, row) for picture, row in zip(pictures, bits, strict=True)]

    def write(self, piece: Piece, keys: Sequence[Key], answers: Sequence[Answer]) -> int:
        """Writes a piece, whole or not at all. Returns: its size in bytes. Raises: UserError as `whole_file`."""
        columns = {
            "index": pa.array([index for _, index in keys], pa.int64()),
            "picture": pa.array([answer.picture for answer in answers], pa.int64()),
            "answer": pa.array([bytes(answer.bits.numpy()) for answer in answers], pa.binary()),
        }
        table = pa.table(columns)
        options = {"compression": "zstd", "write_page_checksum": True, "use_dictionary": False}
        if self._local:
            with whole_file(Path(self._path(piece))) as aside:
                pq.write_table(table, aside, **options)
        else:  # an object appears when its upload is complete
            self._files.create_dir(str(PurePosixPath(self._path(piece)).parent), recursive=True)
            pq.write_table(table, self._path(piece), filesystem=self._files, **options)
        return int(self._files.get_file_info(self._path(piece)).size)

    def try_out(self) -> None:
        """Writes a file, and takes it and the folders it has made away again.

        Raises: OSError where pieces cannot be written.
        """
        path = str(self._folder / f"try-{uuid.uuid4().hex}")
        own = [Path(p) for p in (self._folder, self._folder.parent) if self._local and not Path(p).exists()]
        self._files.create_dir(str(self._folder), recursive=True)
        with self._files.open_output_stream(path) as file:
            file.write(b"-")
        self._files.delete_file(path)
        with contextlib.suppress(OSError):  # another sweep has begun to use them
            for folder in own:
                folder.rmdir()

    def remove_turn(self, turn: int) -> None:
        """Takes all pieces of a turn out; one that another sweep has taken out before is no mistake."""
        with contextlib.suppress(FileNotFoundError):
            self._files.delete_dir(str((self._folder / Piece(turn, 0).name).parent))

    def sizes(self) -> dict[int, int]:
        """Bytes by turn."""
        found: dict[int, int] = {}
        selector = pafs.FileSelector(str(self._folder), recursive=True, allow_not_found=True)
        for info in self._files.get_file_info(selector):
            if info.type == pafs.FileType.File and info.path.endswith(".parquet"):
                turn = int(PurePosixPath(info.path).parent.name.removeprefix("turn-"))
                found[turn] = found.get(turn, 0) + info.size
        return found

    def free_bytes(self) -> int | None:
        """Room left where the pieces lie; None where nobody can tell."""
        if not self._local:
            return None
        at = Path(self._folder)
        while not at.exists():
            at = at.parent
        stats = os.statvfs(at)
        return stats.f_bavail * stats.f_frsize

    def _path(self, piece: Piece) -> str:
        return str(self._folder / piece.name)


def file_system(place: str) -> tuple[pafs.FileSystem, str]:
    """pyarrow's file system of a folder or URI, and the path on it. Raises: ConfigError for an unknown URI."""
    if "://" not in place:
        return pafs.LocalFileSystem(), str(Path(place).resolve())
    try:
        files, path = pafs.FileSystem.from_uri(place)
    except (pa.ArrowException, OSError, ValueError) as e:
        raise ConfigError(f"teacher.store: {place}: {str(e).splitlines()[0]}") from e
    return files, path
