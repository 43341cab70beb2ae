"""Reads back from MLflow what `tracking` wrote there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ocr_ray.errors import RunError
from ocr_ray.mlflow_store import quiet_client
from ocr_ray.tracking import PARENT_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUNS_A_PAGE = 1000


def existing_store(uri: str) -> "MlflowClient":
    """A client of a store that is to be read.

    Raises: RunError when its database is not there, or it does not answer.
    """
    path = uri.removeprefix("sqlite:///")
    if path != uri and not Path(path).exists():  # opening it would make an empty one
        raise RunError(f"{path}: no tracking database here (--tracking or MLFLOW_TRACKING_URI names another)")
    with answered(uri):
        return quiet_client(uri)


class TrackedRuns:
    """The runs of one store, to read.

    Args: uri of a database or server.
    Raises: RunError when the database is not there. Its methods: RunError when the store does not answer, or does not
        have what is asked for.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client = existing_store(uri)

    def run(self, run_id: str) -> "Run":
        """The run of that id."""
        with answered(f"run {run_id}: not found in {self.uri}"):
            return self._client.get_run(run_id)

    def children(self, parent: "Run") -> "list[Run]":
        """The trials of a sweep, in the order of their start."""
        found: list[Run] = []
        token: str | None = None
        with answered(f"{parent.info.run_id}: its trials cannot be read from {self.uri}"):
            while True:
                page = self._client.search_runs(
                    [parent.info.experiment_id],
                    f"tags.`{PARENT_TAG}` = '{parent.info.run_id}'",
                    max_results=RUNS_A_PAGE,
                    order_by=["attributes.start_time ASC"],
                    page_token=token,
                )
                found += page
                token = page.token
                if not token:
                    return found

    def with_tag(self, key: str, value: str) -> "list[Run]":
        """All runs of all experiments that have it, the newest first."""
        with answered(f"{self.uri}: cannot be searched"):
            experiments = [e.experiment_id for e in self._client.search_experiments()]
            return list(self._client.search_runs(experiments, f"tags.`{key}` = '{value}'", max_results=RUNS_A_PAGE))

    def download(self, run_id: str, name: str, folder: Path) -> Path:
        """An artifact's file, brought into `folder` or where it lies on this machine."""
        with answered(f"run {run_id}: has no {name}"):
            return Path(self._client.download_artifacts(run_id, name, str(folder)))

    def history(self, run_id: str, metric: str) -> dict[int, float]:
        """A metric's values by epoch."""
        with answered(f"{run_id}: {metric} cannot be read from {self.uri}"):
            return {point.step: point.value for point in self._client.get_metric_history(run_id, metric)}


@contextmanager
def answered(what: str) -> Iterator[None]:
    """Turns what MLflow raises in the block into a RunError that starts with `what`."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as e:
        raise RunError(f"{what} ({' '.join(str(e).split())[:200]})") from e
