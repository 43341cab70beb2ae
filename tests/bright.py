"""A detector that takes bright pixels for text, as an exported file, and pictures on which it is right or wrong on
purpose."""

from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ocr_ray.data.labels import format_line
from ocr_ray.data.normalize import NormalizeConfig
from ocr_ray.data.resize import ResizeConfig
from ocr_ray.model_card import ModelCard, Origin

BRIGHT, DIM, GROUND = 255, 150, 30
CARD = ModelCard(
    normalize=NormalizeConfig((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    resize=ResizeConfig(limit_side_len=960, limit_type="max"),
    origin=Origin(hmean=0.75, recipe="cml", run="a sweep", config_digest="c0ffee"),
)


def write_detector(path: Path, limit: float, card: ModelCard = CARD) -> Path:
    """It sees text where the mean of the channels lies above `limit`, of 1."""
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["y"]),
        helper.make_node("Sigmoid", ["y"], ["maps"]),
    ]
    arrays = {"w": np.full((1, 3, 1, 1), 40 / 3, np.float32), "b": np.array([-40 * limit], np.float32)}
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, card.to_metadata())
    onnx.save(model, str(path))
    return path


def write_pictures(folder: Path, number: int) -> Path:
    """A label file of pictures of 160x96 with a bright text and a dim one each."""
    folder.mkdir()
    lines = []
    for i in range(number):
        image = np.full((96, 160, 3), GROUND, np.uint8)
        regions = []
        for top, grey in ((12, BRIGHT), (60, DIM)):
            left, width, height = 20 + i % 7, 80 + i % 5, 18
            image[top : top + height, left : left + width] = grey
            grown = width * height * 1.5 / (2 * (width + height))
            x0, y0, x1, y1 = left - grown, top - grown, left + width + grown, top + height + grown
            regions.append(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]).clip(0, (160, 96)))
        cv2.imwrite(str(folder / f"{i}.png"), image)
        lines.append(format_line(f"{i}.png", regions, ["bright", "dim"]) + "\n")
    (folder / "val_label.txt").write_text("".join(lines))
    return folder / "val_label.txt"
