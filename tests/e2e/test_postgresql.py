"""A real tracking server over a real PostgreSQL, and four drivers that write to it at the same moment."""

import contextlib
import getpass
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.four_writers import nothing_is_lost, write_at_once
from tests.tracking_server import free_port, tracking_server


@pytest.fixture
def database(tmp_path: Path) -> Iterator[str]:
    """An address of a new one. Skips where there is no PostgreSQL."""
    program = shutil.which("pg_ctl")
    if program is None:
        pytest.skip("no pg_ctl here (Debian: apt-get install postgresql)")
    programs = Path(program).resolve().parent
    folder, port = tmp_path / "postgresql", free_port()
    folder.mkdir()
    as_user: list[str] = []
    if getpass.getuser() == "root":  # as whom it does not start
        if shutil.which("runuser") is None:
            pytest.skip("PostgreSQL does not start as root, and there is no runuser")
        as_user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
        for above in tmp_path.parents:
            with contextlib.suppress(PermissionError):
                above.chmod(above.stat().st_mode | 0o011)  # pytest's folders are closed to others
        tmp_path.chmod(0o755)
    run = [*as_user, str(programs / "initdb"), "--pgdata", str(folder), "--auth=trust", "--username=ocr", "--no-sync"]
    subprocess.run(run, check=True, capture_output=True, cwd=folder)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder}"
    control = [*as_user, program, "--pgdata", str(folder), "--wait"]
    log = ["--log", str(folder / "log"), "--options", options]
    subprocess.run([*control, *log, "start"], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    try:
        yield f"postgresql+psycopg2://ocr@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "--mode=immediate", "stop"], check=True, stdout=subprocess.DEVNULL, cwd=folder)


def test_four_sweeps_at_once_lose_nothing(database: str, tmp_path: Path) -> None:
    pytest.importorskip("psycopg2", reason="no psycopg2 here (pip install psycopg2-binary)")
    port = free_port()
    with tracking_server(tmp_path, port, database):
        uri = f"http://127.0.0.1:{port}"
        lines = write_at_once(tmp_path, uri)
        assert [line for line in lines if "are still to be written" not in line] == []  # a slow server is waited for
        nothing_is_lost(uri)
