"""Fetching published weights, from a real HTTP server on the loopback."""

import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from ocr_ray.errors import WeightsError
from ocr_ray.files import file_digest
from ocr_ray.weights import published
from ocr_ray.weights.load import read_weights
from ocr_ray.weights.pdparams import write_pdparams
from ocr_ray.weights.published import PUBLISHED, fetch

BACKBONE = "/pretrained/ResNet50_vd_ssld_pretrained.pdparams"
ARCHIVE = "/PP-OCRv3/chinese/ch_PP-OCRv3_det_distill_train.tar"
MEMBER = "ch_PP-OCRv3_det_distill_train/best_accuracy.pdparams"


@dataclass
class Site:
    """What the server has, and what it was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: int | None = None
    """Bytes after which it hangs up, although it announced the whole length."""
    fail_first: int = 0
    """So many requests get a 503."""
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            if len(site.asked) <= site.fail_first:
                self.send_error(503)
                return
            if self.path not in site.files:
                self.send_error(404)
                return
            content = site.files[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: site.cut_after])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("OCR_RAY_WEIGHTS_URL", site.url + "/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(published, "RETRIES", 0)  # each waits a second
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    array = np.random.default_rng(0).standard_normal((32, 3, 3, 3)).astype(np.float32)
    write_pdparams(tmp_path / "served.pdparams", {"conv1_1._conv.weight": array})
    return (tmp_path / "served.pdparams").read_bytes()


def archive(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


def nothing_left(cache: Path) -> bool:
    return not cache.exists() or list(cache.iterdir()) == []


def test_a_file_is_fetched_once_and_readable(site: Site, weights: bytes, tmp_path: Path) -> None:
    site.files[BACKBONE] = weights
    cache = tmp_path / "made" / "cache"
    path = fetch("resnet50_vd_ssld", cache)
    assert path == cache / "resnet50_vd_ssld.pdparams"
    assert path.read_bytes() == weights
    assert list(read_weights(path).arrays[""]) == ["backbone.conv1_1.conv.weight"]
    assert fetch("resnet50_vd_ssld", cache) == path
    assert site.asked == [BACKBONE]
    assert sorted(p.name for p in cache.iterdir()) == ["hashes.json", "resnet50_vd_ssld.pdparams"]


def test_the_first_fetch_records_the_hash(site: Site, weights: bytes, tmp_path: Path) -> None:
    site.files[BACKBONE] = weights
    path = fetch("resnet50_vd_ssld", tmp_path / "cache")
    hashes = json.loads((tmp_path / "cache" / "hashes.json").read_text())
    assert hashes == {Path(BACKBONE).name: file_digest(path), path.name: file_digest(path)}


def test_the_wanted_file_of_a_tar_is_unpacked_alone(site: Site, weights: bytes, tmp_path: Path) -> None:
    site.files[ARCHIVE] = archive({"ch_PP-OCRv3_det_distill_train/train.log": b"x" * 5000, MEMBER: weights})
    cache = tmp_path / "cache"
    path = fetch("ppocrv3_det_distill", cache)
    assert path.read_bytes() == weights
    assert sorted(p.name for p in cache.iterdir()) == ["hashes.json", "ppocrv3_det_distill.pdparams"]
    hashes = json.loads((cache / "hashes.json").read_text())
    assert hashes.keys() == {Path(ARCHIVE).name, path.name}
    assert hashes[path.name] == file_digest(path)


def test_a_tar_with_paths_that_leave_it_harms_nothing(site: Site, weights: bytes, tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    escaping = {"../../outside.txt": b"evil", "../outside.txt": b"evil", str(outside): b"evil"}
    site.files[ARCHIVE] = archive({**escaping, MEMBER: weights}, {"ch_PP-OCRv3_det_distill_train/link": "/etc/passwd"})
    cache = tmp_path / "cache"
    assert fetch("ppocrv3_det_distill", cache).read_bytes() == weights
    assert not outside.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "served.pdparams"]
    assert sorted(p.name for p in cache.iterdir()) == ["hashes.json", "ppocrv3_det_distill.pdparams"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../outside.txt"])
def test_a_tar_whose_wanted_file_is_a_link_is_refused(site: Site, tmp_path: Path, target: str) -> None:
    site.files[ARCHIVE] = archive({}, {MEMBER: target})
    with pytest.raises(WeightsError, match=r"best_accuracy\.pdparams is not a plain file"):
        fetch("ppocrv3_det_distill", tmp_path / "cache")
    assert nothing_left(tmp_path / "cache")


def test_a_tar_without_the_wanted_file_is_refused(site: Site, weights: bytes, tmp_path: Path) -> None:
    site.files[ARCHIVE] = archive({"other.pdparams": weights})
    with pytest.raises(WeightsError, match="has no file ch_PP-OCRv3_det_distill_train/best_accuracy"):
        fetch("ppocrv3_det_distill", tmp_path / "cache")
    assert nothing_left(tmp_path / "cache")


@pytest.mark.parametrize("kept", [700, 3000])
def test_a_tar_that_is_cut_at_its_source_is_refused(site: Site, weights: bytes, tmp_path: Path, kept: int) -> None:
    site.files[ARCHIVE] = archive({MEMBER: weights})[:kept]
    with pytest.raises(WeightsError, match="distill_train"):
        fetch("ppocrv3_det_distill", tmp_path / "cache")
    assert nothing_left(tmp_path / "cache")


def test_a_download_that_breaks_off_leaves_nothing_and_can_be_repeated(
    site: Site, weights: bytes, tmp_path: Path
) -> None:
    site.files[BACKBONE] = weights
    site.cut_after = len(weights) // 2
    with pytest.raises(WeightsError, match=r"ResNet50_vd_ssld_pretrained\.pdparams: cannot be downloaded") as caught:
        fetch("resnet50_vd_ssld", tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert nothing_left(tmp_path / "cache")
    site.cut_after = None
    assert fetch("resnet50_vd_ssld", tmp_path / "cache").read_bytes() == weights


def test_a_server_that_stumbles_is_asked_again(
    site: Site, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "RETRIES", 1)
    site.files[BACKBONE], site.fail_first = weights, 1
    assert fetch("resnet50_vd_ssld", tmp_path / "cache").read_bytes() == weights
    assert site.asked == [BACKBONE, BACKBONE]


def test_an_absent_file_is_one_line_with_its_address(site: Site, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="404") as caught:
        fetch("mobilenet_v3_large_x0_5", tmp_path / "cache")
    expected = f"{site.url}/pretrained/MobileNetV3_large_x0_5_pretrained.pdparams: cannot be downloaded"
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)
    assert nothing_left(tmp_path / "cache")


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCR_RAY_WEIGHTS_URL", "http://127.0.0.1:9")  # the discard port: nothing listens
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(published, "RETRIES", 0)
    with pytest.raises(WeightsError, match="cannot be downloaded") as caught:
        fetch("resnet50_vd_ssld", tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert nothing_left(tmp_path / "cache")


def test_an_error_page_that_calls_itself_a_success_is_refused(site: Site, tmp_path: Path) -> None:
    site.files[BACKBONE] = b"<html>please log in</html>"
    with pytest.raises(WeightsError, match=r"not a whole \.pdparams file \(starts b'<html>p") as caught:
        fetch("resnet50_vd_ssld", tmp_path / "cache")
    assert str(caught.value).startswith(f"{site.url}{BACKBONE}: ")
    assert nothing_left(tmp_path / "cache")


def test_content_that_changed_since_the_first_fetch_is_refused_with_both_hashes(
    site: Site, weights: bytes, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    site.files[BACKBONE] = weights
    path = fetch("resnet50_vd_ssld", cache)
    first = file_digest(path)
    path.unlink()
    write_pdparams(tmp_path / "other.pdparams", {"conv1_1._conv.weight": np.zeros((32, 3, 3, 3), np.float32)})
    site.files[BACKBONE] = (tmp_path / "other.pdparams").read_bytes()
    with pytest.raises(WeightsError, match="at first fetch it was") as caught:
        fetch("resnet50_vd_ssld", cache)
    assert first in str(caught.value)
    assert file_digest(tmp_path / "other.pdparams") in str(caught.value)
    assert [p.name for p in cache.iterdir()] == ["hashes.json"]


def test_a_cached_file_that_changed_is_refused_with_both_hashes(site: Site, weights: bytes, tmp_path: Path) -> None:
    site.files[BACKBONE] = weights
    path = fetch("resnet50_vd_ssld", tmp_path / "cache")
    first = file_digest(path)
    path.write_bytes(weights[:-9] + b"x" + weights[-8:])
    with pytest.raises(WeightsError, match="at first fetch it was") as caught:
        fetch("resnet50_vd_ssld", tmp_path / "cache")
    assert first in str(caught.value)
    assert file_digest(path) in str(caught.value)
    assert site.asked == [BACKBONE]


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="expected resnet50_vd_ssld, mobilenet_v3_large_x0_5, ppocrv3_det_distill"):
        fetch("resnet50", tmp_path)


def test_a_cache_that_cannot_be_made_is_one_line(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match="cannot be written to"):
        fetch("resnet50_vd_ssld", tmp_path / "file" / "cache")


def test_the_cache_is_where_the_environment_says(
    site: Site, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCR_RAY_CACHE", str(tmp_path / "elsewhere"))
    site.files[BACKBONE] = weights
    assert fetch("resnet50_vd_ssld").parent == tmp_path / "elsewhere"


def test_addresses_are_the_makers_own_without_a_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCR_RAY_WEIGHTS_URL", raising=False)
    assert [p.url for p in PUBLISHED] == [
        "https://paddleocr.bj.bcebos.com/pretrained/ResNet50_vd_ssld_pretrained.pdparams",
        "https://paddleocr.bj.bcebos.com/pretrained/MobileNetV3_large_x0_5_pretrained.pdparams",
        "https://paddleocr.bj.bcebos.com/PP-OCRv3/chinese/ch_PP-OCRv3_det_distill_train.tar",
    ]
    console = Console(width=300, file=io.StringIO(), record=True)
    console.print(published.table())
    text = console.export_text()
    assert all(p.name in text and p.url in text for p in PUBLISHED)
