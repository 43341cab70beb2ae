"""Programs that read our ONNX files, each as its users have it: from a picture to the regions that it finds."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ocr_ray.data.images import Image
from ocr_ray.data.resize import resize_for_test, resized_shape
from ocr_ray.engine.evaluate import shrink_maps
from ocr_ray.model_card import ModelCard
from ocr_ray.models.onnx_detector import OnnxDetector
from ocr_ray.postprocess import boxes_from_map

Read = Callable[[Image], list[NDArray[Any]]]


@dataclass(frozen=True)
class Reader:
    """A program with its settings."""

    name: str
    settings: str
    """`the file's`, or the program's own."""
    read: Read
    """The polygons `(K, 2)` of a picture `(H, W, 3)` uint8, B, G, R, in its pixels."""
    same: bool = True
    """Whether it has the settings of training, so that it has to find what PyTorch finds."""
    map_of: Callable[[Image], NDArray[Any]] | None = None
    """Where its rules are other ones: the probability map `(H, W)` that it applies them to, at the resized size. That
    has to be PyTorch's."""


def onnxruntime_reader(path: Path, card: ModelCard) -> Reader:
    """onnxruntime between our own steps: what the graph alone changes."""
    detector = OnnxDetector(path)

    def read(image: Image) -> list[NDArray[Any]]:
        resized, _ = resize_for_test(image, card.resize)
        probability = shrink_maps(detector, [resized], card.normalize, torch.device("cpu"))[0]
        height, width = image.shape[:2]
        return [found.polygon for found in boxes_from_map(probability, card.postprocess, width, height)]

    return Reader(f"onnxruntime {version('onnxruntime')}", "the file's", read)


def rapidocr_readers(keys: Mapping[str, object], same: bool) -> list[Reader]:
    """RapidOCR's detector with these keys, and with its own settings for all but the file; none where it is absent.

    Args: same says whether the keys hold all that the file was evaluated by.
    """
    try:
        import rapidocr
    except ImportError:
        return []
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    name = f"RapidOCR {version('rapidocr')}"
    own = {"Det.model_path": keys["Det.model_path"]}
    return [
        Reader(name, "the file's", _rapidocr(rapidocr, keys), same),
        Reader(name, "its own", _rapidocr(rapidocr, own), same=False),
    ]


def _rapidocr(rapidocr: Any, params: Mapping[str, object]) -> Read:
    engine = rapidocr.RapidOCR(params={"Global.log_level": "error", **params})

    def read(image: Image) -> list[NDArray[Any]]:
        found = engine(image, use_det=True, use_cls=False, use_rec=False)
        return list(found.boxes) if found.boxes is not None else []

    return read


def opencv_reader(path: Path, card: ModelCard) -> Reader:
    """OpenCV's `TextDetectionModel_DB`. It has no cut by a region's score and grows quads by another rule, so it is
    held to the map that it does so with.

    Args: path is of a file that answers by a bare map, `(H, W)`.
    """
    net = cv2.dnn.TextDetectionModel_DB(str(path))
    cuts = card.postprocess
    net.setBinaryThreshold(cuts.thresh).setPolygonThreshold(cuts.box_thresh).setUnclipRatio(cuts.unclip_ratio)
    net.setMaxCandidates(cuts.max_candidates)
    net.setInputScale([1 / (255 * std) for std in card.normalize.std])
    net.setInputMean([255 * mean for mean in card.normalize.mean])

    def set_size(image: Image) -> tuple[int, int]:
        to_height, to_width = resized_shape(image.shape[0], image.shape[1], card.resize)
        net.setInputSize(to_width, to_height)
        return to_height, to_width

    def read(image: Image) -> list[NDArray[Any]]:
        set_size(image)
        quads, _ = net.detect(image)
        return [np.asarray(quad) for quad in quads]

    def map_of(image: Image) -> NDArray[Any]:
        size = set_size(image)
        return np.asarray(net.predict(image)[0]).reshape(size)

    return Reader(f"OpenCV {cv2.__version__}", "the file's, its own rules", read, same=False, map_of=map_of)
