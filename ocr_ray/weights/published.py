"""The recipe's published starting points: what they are for, where they lie, and how one gets here.

They are PaddleOCR's own files. Nobody publishes their hashes, so the hash of the first download is kept beside the
cache, and later downloads and the cached file itself are held against it.
"""

import http.client
import json
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pooch
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from ocr_ray.errors import WeightsError
from ocr_ray.files import file_digest, whole_file, write_text
from ocr_ray.weights.load import read_weights

BASE_URL = "https://paddleocr.bj.bcebos.com"
MIRROR_VARIABLE = "OCR_RAY_WEIGHTS_URL"
CACHE_VARIABLE = "OCR_RAY_CACHE"
HASHES_FILE = "hashes.json"
RETRIES = 2
TIMEOUT_S = 30
CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Published:
    """A file of weights that its makers offer for download."""

    name: str
    path: str
    """Below the base address."""
    use: str
    member: str | None = None
    """Of a tar: the one file of it that is wanted."""

    @property
    def url(self) -> str:
        """The address, on the mirror that OCR_RAY_WEIGHTS_URL names or else at its makers'."""
        return f"{os.environ.get(MIRROR_VARIABLE, BASE_URL).rstrip('/')}/{self.path}"


PUBLISHED = (
    Published(
        "resnet50_vd_ssld",
        "pretrained/ResNet50_vd_ssld_pretrained.pdparams",
        "ImageNet backbone of the teacher: start of both students of DML (may_be_new: neck, head)",
    ),
    Published(
        "mobilenet_v3_large_x0_5",
        "pretrained/MobileNetV3_large_x0_5_pretrained.pdparams",
        "ImageNet backbone of the student: start of the students of CML (may_be_new: neck, head)",
    ),
    Published(
        "ppocrv3_det_distill",
        "PP-OCRv3/chinese/ch_PP-OCRv3_det_distill_train.tar",
        "all three nets of the released PP-OCRv3 detector (Student, Student2, Teacher): start of fine-tuning",
        member="ch_PP-OCRv3_det_distill_train/best_accuracy.pdparams",
    ),
)


def table() -> Table:
    """The published starting points with their addresses."""
    rows = Table(title="Published starting points", show_lines=True)
    rows.add_column("name", no_wrap=True)
    rows.add_column("what it is, and where", overflow="fold")
    for published in PUBLISHED:
        rows.add_row(published.name, f"{published.use}\n{published.url}")
    return rows


def cache_folder() -> Path:
    """OCR_RAY_CACHE, or the operating system's folder for such things."""
    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("ocr_ray"))


def fetch(name: str, cache: Path | None = None) -> Path:
    """The published file `name` as a `.pdparams` in the cache, downloaded when it is not there yet.

    A download is looked at before it is kept: it has to be whole, and to be what was downloaded the first time. When
    anything fails, nothing is left behind. Of a tar only the wanted file is read; no other path in it is touched.

    Args: name as in `PUBLISHED`; cache: a folder, by default `cache_folder()`.
    Raises: WeightsError for an unknown name, an address that does not answer or has no such file, a download that is
        cut or no weights, and for content that differs from the first time (both hashes are named).
    """
    published = next((p for p in PUBLISHED if p.name == name), None)
    if published is None:
        raise WeightsError(
            f"{name}: no published weights of that name, expected {', '.join(p.name for p in PUBLISHED)}"
        )
    folder = cache_folder() if cache is None else cache
    target = folder / f"{name}.pdparams"
    if target.exists():
        _hold_against_first(folder, target.name, file_digest(target), f"{target}, delete it to fetch it again")
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder, prefix=f".{name}."))
    except OSError as e:
        raise WeightsError(f"{folder}: cannot be written to: {e.strerror}") from e
    try:
        downloaded = _download(published, aside)
        _hold_against_first(folder, Path(published.path).name, file_digest(downloaded), published.url, keep=False)
        weights = downloaded if published.member is None else _member(downloaded, published.member, aside)
        try:
            read_weights(weights)  # cut files and error pages end here
        except WeightsError as e:
            raise WeightsError(str(e).replace(str(weights), published.url)) from e
        for key, file in ((Path(published.path).name, downloaded), (target.name, weights)):
            _hold_against_first(folder, key, file_digest(file), published.url)
        weights.replace(target)
    finally:
        shutil.rmtree(aside)
    return target


def _download(published: Published, folder: Path) -> Path:
    file_name = Path(published.path).name
    pooch.get_logger().setLevel("ERROR")  # it would name the temporary folder
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    store = pooch.create(
        folder, "", registry={file_name: None}, urls={file_name: published.url}, retry_if_failed=RETRIES
    )
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        downloader = _Downloader(progress, progress.add_task(published.name, total=None))
        try:
            return Path(store.fetch(file_name, downloader=downloader))
        except ValueError as e:
            raise WeightsError(f"{published.url}: cannot be downloaded: {e}") from e


@dataclass(frozen=True)
class _Downloader:
    """What pooch calls for each attempt. Its own one leaves sockets open, and takes some broken-off files for whole."""

    progress: Progress
    task: TaskID

    def __call__(self, url: str, output_file: str, pooch: object, check_only: bool = False) -> None:
        """Raises: ValueError for what another attempt may mend, which pooch then makes; WeightsError for the rest."""
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response, Path(output_file).open("wb") as out:
                announced = int(response.headers.get("Content-Length", 0))
                self.progress.reset(self.task, total=announced or None)
                while chunk := response.read(CHUNK_BYTES):
                    out.write(chunk)
                    self.progress.advance(self.task, len(chunk))
                if announced > out.tell():
                    raise ValueError(f"broke off after {out.tell():,} of {announced:,} bytes")
        except urllib.error.HTTPError as e:
            e.close()
            if e.code < 500:
                raise WeightsError(f"{url}: cannot be downloaded: {e.code} {e.reason}") from e
            raise ValueError(f"{e.code} {e.reason}") from e
        except (OSError, http.client.HTTPException) as e:
            raise ValueError(str(getattr(e, "reason", e) or type(e).__name__)) from e


def _member(archive: Path, name: str, folder: Path) -> Path:
    """The file `name` of a tar, copied out by its content alone: no path of the tar is ever created."""
    out = folder / Path(name).name
    try:
        with tarfile.open(archive, "r:") as tar:
            content = tar.extractfile(tar.getmember(name)) if tar.getmember(name).isreg() else None
            if content is None:
                raise WeightsError(f"{archive.name}: {name} is not a plain file")
            with content, whole_file(out) as aside, aside.open("wb") as stream:
                shutil.copyfileobj(content, stream)
    except KeyError as e:
        raise WeightsError(f"{archive.name}: has no file {name}") from e
    except (tarfile.TarError, EOFError, OSError) as e:
        raise WeightsError(f"{archive.name}: not a whole tar: {e}") from e
    return out


def _hold_against_first(folder: Path, key: str, found: str, source: str, keep: bool = True) -> None:
    """Compares a SHA-256 with the one kept under `key`; the first one is kept."""
    store = folder / HASHES_FILE
    try:
        hashes = json.loads(store.read_text()) if store.exists() else {}
        first = hashes.get(key)
    except (ValueError, AttributeError, OSError) as e:
        raise WeightsError(f"{store}: not a JSON file of hashes; delete it to trust the next download") from e
    if first is None and keep:
        write_text(store, json.dumps({**hashes, key: found}, indent=2))
    elif first is not None and first != found:
        raise WeightsError(f"{source}: SHA-256 of {key} is {found}, at first fetch it was {first} (kept in {store})")
