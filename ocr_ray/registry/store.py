"""The registry of one MLflow store: versions of a model, the alias of the one in use, and the ONNX file of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ocr_ray.errors import RunError
from ocr_ray.registry.log import ONNX_FILE
from ocr_ray.tracked import answered, existing_store

CHAMPION = "champion"
"""Alias of the version that is in use."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    number: int
    tags: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


class Registry:
    """Reads and marks the versions that `register` made.

    Args: uri of a database or server.
    Raises: RunError when the database is not there. Its methods: RunError when the store does not answer, or does not
        have what is asked for.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client = existing_store(uri)

    def version(self, name: str, number: int | None = None) -> Version:
        """The version of that number, or the latest one."""
        with answered(f"{name}{'' if number is None else f' {number}'}: not found in {self.uri}"):
            if number is None:
                found = self._client.search_model_versions(
                    f"name = '{name}'", max_results=1, order_by=["version_number DESC"]
                )
                if not found:
                    raise RunError(f"{name}: no version is registered in {self.uri} (ocr-ray register makes one)")
                number = int(found[0].version)
            version = self._client.get_model_version(name, str(number))
        return Version(name, number, dict(version.tags))

    def champion(self, name: str) -> Version | None:
        """The version in use; None where there is none yet."""
        with answered(f"{name}: not found in {self.uri}"):
            number = self._client.get_registered_model(name).aliases.get(CHAMPION)
        return None if number is None else self.version(name, int(number))

    def fetch(self, version: Version, folder: Path) -> Path:
        """The version's ONNX file, brought into `folder` or where it lies on this machine."""
        from mlflow.artifacts import download_artifacts

        with answered(f"{version}: its {ONNX_FILE} cannot be read from {self.uri}"):
            where = self._client.get_model_version_download_uri(version.name, str(version.number))
            return Path(
                download_artifacts(f"{where}/artifacts/{ONNX_FILE}", dst_path=str(folder), tracking_uri=self.uri)
            )

    def tag(self, version: Version, tags: Mapping[str, str], prefix: str) -> None:
        """Gives the version these tags, instead of all that it had whose names begin with `prefix`."""
        with answered(f"{version}: cannot be tagged in {self.uri}"):
            for key in version.tags:
                if key.startswith(prefix) and key not in tags:
                    self._client.delete_model_version_tag(version.name, str(version.number), key)
            for key, value in tags.items():
                self._client.set_model_version_tag(version.name, str(version.number), key, value)

    def crown(self, version: Version) -> None:
        """Gives the version the alias `champion`, which another one then has no more."""
        with answered(f"{version}: cannot be made {CHAMPION} in {self.uri}"):
            self._client.set_registered_model_alias(version.name, CHAMPION, str(version.number))
