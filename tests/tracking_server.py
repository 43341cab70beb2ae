"""A real tracking server over a database."""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    """One on which nobody listens now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextlib.contextmanager
def tracking_server(folder: Path, port: int, database: str) -> Iterator[None]:
    """It answers while the block runs. Artifacts lie in `folder`."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", database, "--artifacts-destination", str(folder / "files")]
    log = folder / "server.log"
    with log.open("w") as written:
        process = subprocess.Popen([*command, *store], cwd=folder, stdout=written, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.2)
        else:
            pytest.fail("the server did not come up")
        yield
    finally:
        process.terminate()
        process.wait(30)
