"""A cluster that cannot be had is told in one line."""

from pathlib import Path

import psutil
import pytest
import ray

from ocr_ray.errors import ClusterError
from ocr_ray.session import connected
from ocr_ray.settings import ClusterConfig


def test_a_ray_that_does_not_start_says_what_to_do_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "file"))  # where no folder for its sockets and logs can be
    before = set(psutil.Process().children())
    told = r"Ray did not start on this machine \(.*file.*\): it is busy, .*name it by ray.address"
    with pytest.raises(ClusterError, match=told), connected(ClusterConfig(address="local")):
        pass
    assert not ray.is_initialized()
    assert set(psutil.Process().children()) <= before
