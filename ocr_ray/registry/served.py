"""The detector as MLflow serves it: pictures in, polygons and scores out."""

import base64
import binascii
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mlflow.exceptions import MlflowException
from pydantic import BaseModel

from ocr_ray.data.images import Image, decode_image
from ocr_ray.errors import DataError
from ocr_ray.registry.reader import OnnxReader

if TYPE_CHECKING:
    from mlflow.pyfunc.model import PythonModelContext

ARTIFACT = "detector"
"""The ONNX file among the model's artifacts."""


class Found(BaseModel):
    """What one picture holds."""

    polygons: list[list[list[int]]]
    """A list of `[x, y]` for each region, in pixels of the picture; quads begin at the top left and go clockwise."""
    scores: list[float]
    """One for each polygon, in [0, 1]."""


# MLflow cannot check `Any`, and warns of it, also in its own classes; `as_image` checks. (It sets filters of its own.)
with warnings.catch_warnings(record=True):
    warnings.simplefilter("default")
    from mlflow.pyfunc.model import PythonModel

    class TextDetector(PythonModel):
        """Finds text in pictures, each of them the bytes of a file, their base64 text, or an array.

        An array is `(H, W, 3)` uint8, or the same as nested lists, with channels B, G, R, as `cv2.imread` gives it and
        RapidOCR and PaddleOCR take it; one in R, G, B, as Pillow's, is `array[..., ::-1]`.
        """

        def load_context(self, context: "PythonModelContext") -> None:
            """Opens the net."""
            self._reader = OnnxReader(Path(context.artifacts[ARTIFACT]))

        def predict(  # type: ignore[override]  # without `context`, as MLflow recommends
            self, model_input: list[Any], params: dict[str, Any] | None = None
        ) -> list[Found]:
            """What each picture holds. A server answers one that cannot be read by 400, and none of its request."""
            found: list[Found] = []
            for number, given in enumerate(model_input, start=1):
                source = f"picture {number} of {len(model_input)}"
                try:
                    detections = self._reader.read(as_image(given, source), source)
                except DataError as e:
                    raise MlflowException.invalid_parameter_value(str(e)) from e
                found.append(
                    Found(polygons=[d.polygon.tolist() for d in detections], scores=[d.score for d in detections])
                )
            return found


def as_image(given: object, source: str) -> Image:
    """A picture as `(H, W, 3)` uint8 in B, G, R, out of any of the forms that `TextDetector` takes.

    Raises: DataError that starts with `source` and says what was expected.
    """
    match given:
        case bytes() | bytearray():
            return decode_image(bytes(given), source)
        case str():
            text = given.partition(",")[2] if given.startswith("data:") else given  # as browsers give it
            try:
                return decode_image(base64.b64decode("".join(text.split()), validate=True), source)
            except binascii.Error as e:
                raise DataError(f"{source}: a text that is no base64: {e}") from e
        case np.ndarray() | list():
            return _of_array(given, source)
        case _:
            raise DataError(
                f"{source}: is of type {type(given).__name__}, expected bytes, base64 text or an array (H, W, 3)"
            )


def _of_array(given: "np.ndarray[Any, Any] | list[Any]", source: str) -> Image:
    try:
        array = np.asarray(given)
    except ValueError as e:  # rows of unequal length
        raise DataError(f"{source}: {e}") from e
    if array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise DataError(f"{source}: an array {array.shape}, expected (H, W, 3)")
    if array.dtype != np.uint8:
        if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
            raise DataError(f"{source}: an array of {array.dtype}, expected whole numbers from 0 to 255")
        array = array.astype(np.uint8)
    return np.ascontiguousarray(array)
