"""Decoded pictures kept in the node's shared memory, for all loaders of all trials on it.

An entry is a `.npy` file of exactly the pixels that decoding gives, written aside, renamed and from then on only
mapped: a picture of 1280x720 is there in 0.3 ms, where decoding takes 2.2 ms; a sample of 960x960 then takes 5.8 ms
instead of 6.7, with CopyPaste 5.9 instead of 7.4. Only memory pays: 2.7 MiB on a disk may take longer to read than
their JPEG to decode. So nothing is kept where there is no `/dev/shm`, and little in a small one.
"""

import contextlib
import hashlib
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from ocr_ray.data.images import Image, read_image
from ocr_ray.data.reduced import Reduction, decode_file

SHARED_MEMORY = Path("/dev/shm")
SHARE_OF_MEMORY = 0.25
"""Of all shared memory at most, whatever the budget says: Ray's object store is there too, and takes its room late."""
UNUSED_S = 3600.0
"""An entry that nobody used for so long is dropped by the next process that starts or wants room. Younger ones stay,
and where they fill the budget a new one is not kept: throwing out what another loader is about to ask for would only
add work."""
TOUCH_S = 600.0
"""The time of an entry's last use is written down this rarely."""
SURVEY_MIB = 64
"""What a process adds before it looks again at what all of them have."""


@dataclass
class DecodedStore:
    """Reads pictures through a folder of decoded ones; `folder` None reads the files.

    Safe among processes without locks: entries are whole or absent, and never change. Two that decode the same picture
    at the same time write the same bytes. What is kept may exceed the budget by what processes add between surveys.
    """

    folder: Path | None = None
    budget: int = 0
    """Bytes of all entries."""
    _room: int = field(default=0, repr=False)
    """Bytes that this process may still add before its next survey."""
    _full_until: float = field(default=0.0, repr=False)

    def read(self, path: Path) -> Image:
        """The whole picture, as `read_image`; perhaps read-only. Raises: DataError as `read_image`."""
        image = None if self.folder is None else self.decode(path, 1)
        return read_image(path) if image is None else image

    def decode(self, path: Path, reduction: Reduction) -> Image | None:
        """As `decode_file`: the pixels of a picture at 1/`reduction` of its size, None where it has none."""
        entry = self._entry(path, reduction)
        if entry is None:
            return decode_file(path, reduction)
        image = _mapped(entry)
        if image is None:
            image = decode_file(path, reduction)
            if image is not None:
                self._keep(entry, image)
        return image

    def _entry(self, path: Path, reduction: Reduction) -> Path | None:
        """Where the decoded picture lies, or would. A file that changes gets another entry."""
        if self.folder is None:
            return None
        try:
            stat = path.stat()
        except OSError:
            return None
        key = f"{path.absolute()}\n{stat.st_size}\n{stat.st_mtime_ns}\n{reduction}\n{cv2.__version__}"
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"

    def _keep(self, entry: Path, image: Image) -> None:
        """Adds an entry where there is room. What cannot be written is not kept, and no harm is done."""
        if image.nbytes > self._room:
            self._survey(image.nbytes)
        if image.nbytes > self._room:
            return
        self._room -= image.nbytes
        try:
            handle, aside = tempfile.mkstemp(dir=entry.parent, prefix=".aside-")
            try:
                with os.fdopen(handle, "wb") as stream:
                    np.save(stream, image, allow_pickle=False)
                Path(aside).replace(entry)
            except OSError:
                Path(aside).unlink(missing_ok=True)
                raise
        except OSError:  # full, or the folder is gone
            self._room, self._full_until = 0, time.monotonic() + UNUSED_S

    def _survey(self, needed: int) -> None:
        """Looks at all entries: drops long unused ones, and says what may be added."""
        if self.folder is None or time.monotonic() < self._full_until:
            return
        total = 0
        oldest = time.time() - UNUSED_S
        for file in self.folder.iterdir():
            with contextlib.suppress(OSError):  # another process dropped it
                stat = file.stat()
                if stat.st_mtime < oldest:
                    file.unlink()
                else:
                    total += stat.st_size
        allowed = min(self.budget, total + _free_bytes(self.folder))
        self._room = min(max(allowed - total, 0), max(SURVEY_MIB * 2**20, needed))
        if self._room < needed:
            self._full_until = time.monotonic() + TOUCH_S


def decoded_store(budget_mib: int, memory: Path = SHARED_MEMORY) -> DecodedStore:
    """The store of this user on this node; one that keeps nothing where there is no shared memory, or no budget.

    Args: memory is a folder in memory; at most a quarter of it is used.
    """
    if budget_mib <= 0 or not memory.is_dir():
        return DecodedStore()
    try:
        folder = memory / f"ocr_ray-decoded-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return DecodedStore()  # somebody else's, with our name on it
        size = os.statvfs(memory)
    except (OSError, AttributeError):  # AttributeError: no such system
        return DecodedStore()
    store = DecodedStore(folder, min(budget_mib * 2**20, int(SHARE_OF_MEMORY * size.f_blocks * size.f_frsize)))
    store._survey(0)
    return store


def _free_bytes(folder: Path) -> int:
    """Half of what is free: the rest is for others."""
    size = os.statvfs(folder)
    return size.f_bavail * size.f_frsize // 2


def _mapped(entry: Path) -> Image | None:
    """The entry's pixels, read-only, without a copy; None where it is absent or broken."""
    try:
        image = np.lib.format.open_memmap(entry, mode="r")
        if time.time() - entry.stat().st_mtime > TOUCH_S:
            os.utime(entry)
    except (OSError, ValueError, OverflowError):  # absent, cut short, or no array
        return None
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        return None
    return np.asarray(image)
