"""From a picture to its text regions by an exported ONNX file alone, with the settings in its metadata.

It travels with the models that are logged, and neither it nor what it imports needs PyTorch: a server that only reads
needs onnxruntime, OpenCV, NumPy, shapely and pyclipper.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_ray.data.images import Image
from ocr_ray.data.resize import ResizeConfig, resize_for_test
from ocr_ray.errors import WeightsError, in_one_line
from ocr_ray.postprocess import Detection, PostprocessConfig, boxes_from_map

C = TypeVar("C")


@dataclass(frozen=True)
class Fed:
    """Mean and deviation of pixels in [0, 1] by which pictures are fed, in the order B, G, R."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class OnnxReader:
    """Reads pictures by an ONNX file that `ocr-ray export` wrote.

    Args: threads that the net may use; absent: onnxruntime's own choice, all cores.
    Raises: WeightsError when the file cannot be run, has no settings in its metadata or is not for whole batches.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as e:
            raise WeightsError(f"{path}: running ONNX needs onnxruntime: pip install onnxruntime") from e
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            (given,), (answered,) = self._session.get_inputs(), self._session.get_outputs()
        except Exception as e:  # its errors have no class in common
            raise WeightsError(f"{path}: onnxruntime cannot run it: {in_one_line(e)}") from e
        if len(answered.shape) != 4:
            raise WeightsError(f"{path}: answers {answered.shape}, expected probability maps (N, 1, H, W)")
        self._input = given.name
        settings = self._session.get_modelmeta().custom_metadata_map
        fed = _part(Fed, settings, "normalize", path)
        self.resize = _part(ResizeConfig, settings, "resize", path)
        self.postprocess = _part(PostprocessConfig, settings, "postprocess", path)
        self._fed = [_fed_levels(mean, std) for mean, std in zip(fed.mean, fed.std, strict=True)]

    def read(self, image: Image, source: str = "picture") -> list[Detection]:
        """The text regions of a picture `(H, W, 3)` uint8 in B, G, R, in its pixels.

        Raises: DataError naming `source` when it would have to be enlarged beyond bounds.
        """
        height, width = image.shape[:2]
        probability = self.probability(self.fed(image, source))
        return boxes_from_map(probability, self.postprocess, width, height)

    def fed(self, image: Image, source: str = "picture") -> NDArray[np.float32]:
        """A picture as the net takes it, resized and normalised, `(1, 3, H, W)`. Raises: as `read`."""
        resized, _ = resize_for_test(image, self.resize, source)
        fed = np.empty((1, 3, *resized.shape[:2]), np.float32)
        for channel, pixels in enumerate(cv2.split(resized)):
            cv2.LUT(pixels, self._fed[channel], dst=fed[0, channel])
        return fed

    def probability(self, fed: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probability map `(H, W)` of a picture `(1, 3, H, W)` from `fed`."""
        return self._session.run(None, {self._input: fed})[0][0, 0]


def _fed_levels(mean: float, std: float) -> NDArray[np.float32]:
    """What each of the 256 levels of a channel is fed as: those of `data.normalize`, bit for bit.

    It multiplies and adds in one rounding, as these do in double precision.
    """
    scale, shift = np.float32(1 / (255 * std)), np.float32(-mean / std)
    return (np.arange(256) * np.float64(scale) + np.float64(shift)).astype(np.float32)


def _part(cls: type[C], settings: dict[str, str], key: str, path: Path) -> C:
    """One group of the card in the metadata. What it means was checked when the file was registered."""
    if key not in settings:
        raise WeightsError(f"{path}: its metadata have no {key!r}, expected a file that `ocr-ray export` wrote")
    try:
        plain: dict[str, Any] = json.loads(settings[key])
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()})
    except (ValueError, TypeError, AttributeError) as e:
        raise WeightsError(f"{path}: metadata: {key}: {in_one_line(e)}") from e
