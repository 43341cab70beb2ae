"""Programs that read our ONNX files, each as its users have it: from a picture to the regions that it finds."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ocr_ray.data.images import Image
from ocr_ray.data.normalize import normalize
from ocr_ray.data.resize import resize_for_test, resized_shape
from ocr_ray.model_card import ModelCard
from ocr_ray.postprocess import boxes_from_map
from ocr_ray.weights.onnx_out import INPUT, session

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


def onnxruntime_reader(path: Path, card: ModelCard, threads: int) -> Reader:
    """onnxruntime between our own steps: what the graph alone changes."""
    run = session(path, threads)

    def read(image: Image) -> list[NDArray[Any]]:
        resized, _ = resize_for_test(image, card.resize)
        fed = normalize(torch.from_numpy(resized).permute(2, 0, 1)[None], card.normalize).numpy()
        (maps,) = run.run(None, {INPUT: np.ascontiguousarray(fed)})
        height, width = image.shape[:2]
        return [found.polygon for found in boxes_from_map(maps[0, 0], card.postprocess, width, height)]

    return Reader("onnxruntime", "the file's", read)


def rapidocr_readers(path: Path, keys: Mapping[str, object]) -> list[Reader]:
    """RapidOCR's detector with these keys, and with its own settings for all but the file; none where it is absent."""
    try:
        import rapidocr
    except ImportError:
        return []
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)

    def reader(settings: str, params: Mapping[str, object], same: bool) -> Reader:
        engine = rapidocr.RapidOCR(params={"Global.log_level": "error", **params})

        def read(image: Image) -> list[NDArray[Any]]:
            found = engine(image, use_det=True, use_cls=False, use_rec=False)
            return list(found.boxes) if found.boxes is not None else []

        return Reader(f"RapidOCR {_version('rapidocr')}", settings, read, same)

    return [
        reader("the file's", keys, same=True),
        reader("its own", {"Det.model_path": keys["Det.model_path"]}, same=False),
    ]


def opencv_reader(path: Path, card: ModelCard) -> Reader:
    """OpenCV's `TextDetectionModel_DB`. It has no cut by a region's score and grows quads by another rule."""
    net = cv2.dnn.TextDetectionModel_DB(str(path))
    cuts = card.postprocess
    net.setBinaryThreshold(cuts.thresh).setPolygonThreshold(cuts.box_thresh).setUnclipRatio(cuts.unclip_ratio)
    net.setMaxCandidates(cuts.max_candidates)
    net.setInputScale([1 / (255 * std) for std in card.normalize.std])
    net.setInputMean([255 * mean for mean in card.normalize.mean])

    def read(image: Image) -> list[NDArray[Any]]:
        height, width = image.shape[:2]
        to_height, to_width = resized_shape(height, width, card.resize)
        net.setInputSize(to_width, to_height)
        quads, _ = net.detect(image)
        return [np.asarray(quad) for quad in quads]

    return Reader(f"OpenCV {cv2.__version__}", "the file's, its own rules", read, same=False)


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)
