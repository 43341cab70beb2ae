"""The reference's own data path and post-processing, from the wheel of the extra `bench`, where it is installed.

The wheel keeps them in packages of their own (`ppocr`, `tools`) below `paddleocr/`; they import `paddle`, though these
parts compute with NumPy and OpenCV alone.
"""

import importlib
import importlib.util
import json
import random
import sys
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocr_ray.data.labels import Sample

SIDE = 960


@dataclass(frozen=True)
class Reference:
    """Transforms of the three recipes' YAML (PP-OCRv3), and the post-processing, as the reference runs them."""

    transforms: Any
    postprocess_module: Any
    what: str

    def pipeline(self, copy_paste: bool = False) -> "ReferencePipeline":
        """The training transforms, with or without CopyPaste."""
        decode = [{"DecodeImage": {"img_mode": "BGR", "channel_first": False}}, {"DetLabelEncode": None}]
        geometry: list[dict[str, Any]] = [{"CopyPaste": None}] if copy_paste else []
        turns = [
            {"type": "Fliplr", "args": {"p": 0.5}},
            {"type": "Affine", "args": {"rotate": [-10, 10]}},
            {"type": "Resize", "args": {"size": [0.5, 3]}},
        ]
        geometry += [
            {"IaaAugment": {"augmenter_args": turns}},
            {"EastRandomCropData": {"size": [SIDE, SIDE], "max_tries": 50, "keep_ratio": True}},
            {"MakeBorderMap": {"shrink_ratio": 0.4, "thresh_min": 0.3, "thresh_max": 0.7}},
            {"MakeShrinkMap": {"shrink_ratio": 0.4, "min_text_size": 8}},
            {
                "NormalizeImage": {
                    "scale": "1./255.",
                    "mean": [0.485, 0.456, 0.406],
                    "std": [0.229, 0.224, 0.225],
                    "order": "hwc",
                }
            },
            {"ToCHWImage": None},
            {"KeepKeys": {"keep_keys": ["image", "threshold_map", "threshold_mask", "shrink_map", "shrink_mask"]}},
        ]
        create = self.transforms.create_operators
        return ReferencePipeline(self.transforms.transform, create(decode), create(geometry), copy_paste)

    def boxes(self, probability: NDArray[np.float32]) -> int:
        """Runs the post-processing at the recipes' settings. Returns: how many boxes came out."""
        cls = self.postprocess_module.DBPostProcess
        run = cls(thresh=0.3, box_thresh=0.6, max_candidates=1000, unclip_ratio=1.5)
        height, width = probability.shape
        shape = np.array([[height, width, 1.0, 1.0]])
        return len(run({"maps": probability[None, None]}, shape)[0]["points"])


@dataclass(frozen=True)
class ReferencePipeline:
    """One sample as the reference's loader makes it: file to normalised picture and four maps."""

    transform: Any
    decode: list[Any]
    rest: list[Any]
    copy_paste: bool

    def __call__(self, line: "ReferenceLine", donor: "ReferenceLine", seed: int) -> object:
        """The transforms' arrays; the same for the same seed."""
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # what the reference draws from
        data = self.transform(line.read(), self.decode)
        if self.copy_paste:
            data["ext_data"] = [self.transform(donor.read(), self.decode)]
        return self.transform(data, self.rest)


@dataclass(frozen=True)
class ReferenceLine:
    """A line of a label file, as the reference's dataset keeps it."""

    image: Path
    label: str

    @classmethod
    def of(cls, sample: Sample) -> "ReferenceLine":
        """The line that `sample` was read from."""
        pairs = zip(sample.texts, sample.polygons, strict=True)
        label = [{"transcription": text, "points": polygon.tolist()} for text, polygon in pairs]
        return cls(sample.image, json.dumps(label))

    def read(self) -> dict[str, Any]:
        """What goes into the first transform."""
        return {"img_path": str(self.image), "image": self.image.read_bytes(), "label": self.label}


def find_reference() -> Reference | None:
    """The reference as installed; None where it is not, or cannot be imported (it needs `paddle`)."""
    found = importlib.util.find_spec("paddleocr")
    if found is None or not found.submodule_search_locations:
        return None
    sys.path.insert(0, str(Path(found.submodule_search_locations[0])))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transforms = importlib.import_module("ppocr.data.imaug")
            postprocess = importlib.import_module("ppocr.postprocess.db_postprocess")
    except ImportError as e:
        print(f"the reference is installed, but cannot be imported: {e}", file=sys.stderr)
        return None
    finally:
        del sys.path[0]
    return Reference(transforms, postprocess, f"paddleocr {version('paddleocr')}")
