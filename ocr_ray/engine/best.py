"""The better student of a run as a file of its own, taken out at every improvement."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ocr_ray.errors import RunError
from ocr_ray.files import write_text
from ocr_ray.model_card import ModelCard, save_detector
from ocr_ray.models.detector import Detector
from ocr_ray.weights.load import read_weights

BEST_FOLDER = "best"


def keep_best(
    folder: Path, detector: Detector, card: ModelCard, config: Mapping[str, Any], name: str = "student"
) -> Path:
    """Writes `folder/best/NAME.safetensors` with its card, and beside it `NAME.json`: its origin and the whole config.

    The file is read back and every array must equal the net's, bit for bit, so that the hmean in the card is the
    file's. Returns: the file's path.
    Raises: RunError when what was read back differs.
    """
    path = folder / BEST_FOLDER / f"{name}.safetensors"
    save_detector(path, detector, card)
    (arrays,) = read_weights(path).arrays.values()
    for key, value in detector.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        if not np.array_equal(arrays[key], value.detach().float().cpu().numpy(), equal_nan=True):
            raise RunError(f"{path}: read back, {key} is not what was written; is the disk full or failing?")
    write_text(
        path.with_suffix(".json"), json.dumps({**dataclasses.asdict(card.origin), "config": config}, indent=2) + "\n"
    )
    return path
