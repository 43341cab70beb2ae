"""From a picture to its text regions by an exported ONNX file alone, with the settings in its metadata.

It travels with the models that are logged, and neither it nor what it imports needs PyTorch: a server that only reads
needs onnxruntime, OpenCV, NumPy, shapely and pyclipper.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

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
        # One multiplication and one addition per pixel, as `data.normalize` does it.
        self._scale = np.array([1 / (255 * std) for std in fed.std], np.float32)
        self._shift = np.array([-mean / std for mean, std in zip(fed.mean, fed.std, strict=True)], np.float32)

    def read(self, image: Image, source: str = "picture") -> list[Detection]:
        """The text regions of a picture `(H, W, 3)` uint8 in B, G, R, in its pixels.

        Raises: DataError naming `source` when it would have to be enlarged beyond bounds.
        """
        height, width = image.shape[:2]
        resized, _ = resize_for_test(image, self.resize, source)
        fed = resized.astype(np.float32) * self._scale + self._shift
        maps = self._session.run(None, {self._input: np.ascontiguousarray(fed.transpose(2, 0, 1)[None])})[0]
        return boxes_from_map(maps[0, 0], self.postprocess, width, height)


def _part(cls: type[C], settings: dict[str, str], key: str, path: Path) -> C:
    """One group of the card in the metadata. What it means was checked when the file was registered."""
    if key not in settings:
        raise WeightsError(f"{path}: its metadata have no {key!r}, expected a file that `ocr-ray export` wrote")
    try:
        plain: dict[str, Any] = json.loads(settings[key])
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()})
    except (ValueError, TypeError, AttributeError) as e:
        raise WeightsError(f"{path}: metadata: {key}: {in_one_line(e)}") from e
