"""Where MLflow writes: the store's address, a client of it that is quiet, and what its errors mean."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ocr_ray.errors import ConfigError

if TYPE_CHECKING:
    from mlflow import MlflowClient


def store_uri(configured: str | None, storage: Path) -> str:
    """Where MLflow writes: what is configured, or MLFLOW_TRACKING_URI, or `mlflow.db` in the storage folder."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(storage / 'mlflow.db').resolve()}"


def quiet_client(uri: str) -> "MlflowClient":
    """A client of that store which prints nothing of its own and tries once."""
    # One short try: the retries are ours, and a user's own settings win.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    # A line for each run that ends at a server, on standard output, which belongs to results.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # Bars beside our own lines.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    for name in ("mlflow.store.db.utils", "alembic"):  # a new database otherwise reports its tables
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(uri, registry_uri=uri)


@contextmanager
def opened_alone(uri: str) -> Iterator[None]:
    """Holds other processes off while a database file is made: MLflow's migrations break one another."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    path = Path(uri.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def refused(error: Exception) -> bool:
    """Whether trying again cannot help: the store understood and said no, or a file to copy is not there."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
        return 400 <= status < 500 and status not in (401, 403, 408, 409, 429)
    return isinstance(error, ConfigError | FileNotFoundError | ValueError | TypeError)


def one_line_of(error: Exception) -> str:
    """Its message, or what kind it is, at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
