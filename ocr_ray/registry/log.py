"""Writes an exported detector into MLflow as a model that can be served, and registers it.

Nothing in the model is a pickle: it is the ONNX file, a copy of this package's sources, and a file of three lines that
MLflow runs to put the two together.
"""

import logging
import shutil
import tempfile
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ocr_ray.errors import WeightsError, in_one_line
from ocr_ray.export.write import export
from ocr_ray.files import file_digest
from ocr_ray.mlflow_store import opened_alone, quiet_client
from ocr_ray.model_card import FORMAT, ModelCard, load_detector
from ocr_ray.registry.reader import OnnxReader
from ocr_ray.settings import TrackingConfig
from ocr_ray.tracked import answered
from ocr_ray.weights.onnx_in import onnx_metadata
from ocr_ray.whence import origin_with_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

NAME = "text-detector"
"""Of the registered model, unless another is given."""
ONNX_FILE = "detector.onnx"
"""The net's file among a logged model's artifacts."""
PACKAGE = Path(__file__).resolve().parents[1]
MODEL_CODE = Path(__file__).with_name("model_code.py")
IMPORTED = (
    *(("mlflow",), ("numpy",), ("opencv-python", "opencv-python-headless", "opencv-contrib-python")),
    *(("onnxruntime", "onnxruntime-gpu"), ("pyclipper",), ("pydantic",), ("shapely",)),
)
"""Packages that a served model imports, each with others that bring the same module. PyTorch is none of them."""
LONGEST_TAG = 5000
DIGEST_TAG = "file_digest"
"""Of a version: SHA-256 of its ONNX file."""


@dataclass(frozen=True)
class Registered:
    """A new version in the registry."""

    name: str
    version: int
    run_id: str
    uri: str
    """Of the store."""

    def __str__(self) -> str:
        return f"models:/{self.name}/{self.version}  run {self.run_id}  {self.uri}"


def register(onnx: Path, uri: str, name: str = NAME, run_id: str | None = None) -> Registered:
    """Logs an exported ONNX file to its run as a model, and registers that as a new version of `name`.

    A file that is a version already is not registered again.

    Args: uri of the store, a database (made when it is missing) or a server; run_id: absent: the run that the file
        names or in whose folder it lies, where the store has it, else one of its own.
    Raises: WeightsError for a file that `ocr-ray export` did not write or that cannot be read; RunError when the store
        does not answer, or has no run of the id that was given.
    """
    card = exported_card(onnx)
    OnnxReader(onnx).read(_example_picture())  # now, and not when it is served
    with answered(f"{name}: cannot be registered in {uri}"), opened_alone(uri):
        client = quiet_client(uri)
        digest = file_digest(onnx)
        found = client.search_model_versions(f"name = '{name}' and tags.{DIGEST_TAG} = '{digest}'")
        if found:
            return Registered(name, int(found[0].version), str(found[0].run_id), uri)
        origin = origin_with_run(onnx, card.origin)
        run = client.get_run(run_id) if run_id is not None else _known_run(client, origin.run_id)
    with answered(f"{name}: cannot be registered in {uri}"):
        is_new = run is None
        run = run or _new_run(client, uri, origin.run or onnx.stem)
        model = client.create_logged_model(run.info.experiment_id, name, run.info.run_id)
        try:
            _log_files(client, model, onnx)
        except BaseException:
            client.finalize_logged_model(model.model_id, "FAILED")
            raise
        client.finalize_logged_model(model.model_id, "READY")
        _link(client, run, model)
        number = _new_version(client, name, run, model, {DIGEST_TAG: digest, **version_tags(card)})
        if is_new:
            client.set_terminated(run.info.run_id, "FINISHED")
    return Registered(name, number, run.info.run_id, uri)


def register_weights(
    weights: Path, uri: str, name: str = NAME, run_id: str | None = None, model: str | None = None
) -> Registered:
    """As `register`, of any file of weights: one that is no exported file yet is exported first.

    Args: model is the sub-model of a file with several.
    """
    if weights.suffix == ".onnx" and onnx_metadata(weights).get("format") == FORMAT:
        return register(weights, uri, name, run_id)
    with tempfile.TemporaryDirectory() as folder:
        origin = origin_with_run(weights, load_detector(weights, model)[1].origin)
        exported = export(weights, Path(folder) / f"{weights.stem}.onnx", model, origin=origin)
        return register(exported.path, uri, name, run_id)


def register_or_say(
    onnx: Path, uri: str, say: Callable[[str], None], name: str = NAME, run_id: str | None = None
) -> Registered | None:
    """As `register`, at the end of what must not fail of it: what went wrong is said, and how to do it later."""
    try:
        return register(onnx, uri, name, run_id)
    except Exception as e:  # what keeps a server's files has errors of its own kinds
        run = f" --run {run_id}" if run_id is not None else ""
        say(f"registry: {in_one_line(e)}; later: ocr-ray register {onnx} --name {name} --tracking {uri}{run}")
        return None


def exported_card(onnx: Path) -> ModelCard:
    """The card in an ONNX file's metadata. Raises: WeightsError for a file that has none."""
    metadata = onnx_metadata(onnx)
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{onnx}: its metadata hold no model card, expected a file that `ocr-ray export` wrote")
    return ModelCard.from_metadata(metadata, str(onnx))


def version_tags(card: ModelCard) -> dict[str, str]:
    """What a version says about where it comes from and how it is fed; parts that are not known are left out."""
    origin = card.origin
    known = {
        "hmean": None if origin.hmean is None else f"{origin.hmean:.4f}",
        "recipe": origin.recipe,
        "run": origin.run,
        "epoch": origin.epoch,
        "config_digest": origin.config_digest,
        "data_digest": origin.data_digest,
        "source": origin.source,
        "ocr_ray": origin.version,
        **{key: value for key, value in card.to_metadata().items() if key in ("normalize", "resize", "postprocess")},
    }
    return {key: str(value)[:LONGEST_TAG] for key, value in known.items() if value is not None}


def _known_run(client: "MlflowClient", run_id: str | None) -> "Run | None":
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException as e:
        if e.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run.info.lifecycle_stage == "active" else None


def _new_run(client: "MlflowClient", uri: str, name: str) -> "Run":
    experiment = TrackingConfig().experiment
    found = client.get_experiment_by_name(experiment)
    if found is None:
        # Where runs of a storage folder with this database keep theirs; a server knows its own place.
        beside = Path(uri.removeprefix("sqlite:///")).resolve().with_name("mlartifacts")
        where = beside.as_uri() if uri.startswith("sqlite:///") else None
        return client.create_run(client.create_experiment(experiment, artifact_location=where), run_name=name)
    return client.create_run(found.experiment_id, run_name=name)


def _log_files(client: "MlflowClient", model: "LoggedModel", onnx: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, _quiet():
        from mlflow.models import Model
        from mlflow.pyfunc import save_model

        from ocr_ray.registry.served import ARTIFACT

        file, path = Path(folder) / ONNX_FILE, Path(folder) / "model"
        shutil.copyfile(onnx, file)
        save_model(
            path,
            python_model=str(MODEL_CODE),
            artifacts={ARTIFACT: str(file)},
            code_paths=[str(PACKAGE)],
            pip_requirements=requirements(),
            input_example=[b64encode(cv2.imencode(".png", _example_picture())[1].tobytes()).decode()],
            mlflow_model=Model(
                artifact_path=model.artifact_location,
                run_id=model.source_run_id,
                model_uuid=model.model_id,
                model_id=model.model_id,
            ),
        )
        for cache in list(path.rglob("__pycache__")):  # of the sources that were just imported
            shutil.rmtree(cache)
        client.log_model_artifacts(model.model_id, str(path))


def requirements() -> list[str]:
    """What a served model imports, pinned to what is installed here."""
    return [_pinned(names) for names in IMPORTED]


def _pinned(names: Sequence[str]) -> str:
    """The first package of these that is installed."""
    for name in names:
        with suppress(PackageNotFoundError):
            return f"{name}=={version(name)}"
    raise WeightsError(f"registering a model needs {names[0]}: pip install {names[0]}")


def _link(client: "MlflowClient", run: "Run", model: "LoggedModel") -> None:
    from mlflow.entities import LoggedModelOutput

    client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])


def _new_version(client: "MlflowClient", name: str, run: "Run", model: "LoggedModel", tags: dict[str, str]) -> int:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="Finds text in pictures.")
    except MlflowException as e:
        if e.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(
        name, model.artifact_location, run.info.run_id, tags=tags, model_id=model.model_id
    )
    return int(made.version)


def _example_picture() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A word in black on white, 160x64."""
    picture = np.full((64, 160, 3), 255, np.uint8)
    cv2.putText(picture, "text", (10, 45), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (0, 0, 0), 3)
    return picture


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow tells about each step, and that it cannot check what a picture is."""
    logger = logging.getLogger("mlflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("default")
            yield
    finally:
        logger.setLevel(before)
