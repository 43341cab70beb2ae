"""A file of weights as an ONNX file that others run, with the settings by which their programs read it.

"The trained model is good, the exported one is bad" is nearly always a normalisation, a resize rule or a threshold that
did not travel. So these are in the file's metadata, and beside it in the words of a reader.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from ocr_ray.data.normalize import NormalizeConfig
from ocr_ray.errors import WeightsError
from ocr_ray.files import whole_file, write_text
from ocr_ray.model_card import ModelCard, load_detector
from ocr_ray.typed import to_plain
from ocr_ray.weights.onnx_out import to_onnx

SUFFIX = ".onnx"
HALF = NormalizeConfig((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""What RapidOCR 3 feeds where nobody tells it otherwise."""
Normalize = Literal["outside", "inside"]
For = Literal["rapidocr", "opencv"]


@dataclass(frozen=True)
class Exported:
    """What `export` wrote."""

    path: Path
    card: ModelCard
    """Of the file: its `normalize` is what pictures have to be fed by."""
    settings: Path
    """RapidOCR's keys for it."""
    notes: tuple[str, ...]
    """What a reader cannot be told, for people."""

    def __str__(self) -> str:
        size = self.path.stat().st_size / 2**20
        fed = f"mean {list(self.card.normalize.mean)}, std {list(self.card.normalize.std)}"
        return f"{self.path}: {size:.1f} MiB, fed by {fed}; settings for RapidOCR: {self.settings}"


def export(
    weights: Path, out: Path, model: str | None = None, normalize: Normalize = "outside", reader: For = "rapidocr"
) -> Exported:
    """Writes `out`, its card as `.json` and the reader's settings beside it, whole or not at all.

    Args: model is the sub-model of `weights`. normalize="inside": the graph takes pictures as RapidOCR 3 feeds them
        by default, (x / 255 - 0.5) / 0.5, and brings them itself to what the net was trained with. reader="opencv":
        the graph answers one picture by a bare map, as OpenCV's `TextDetectionModel_DB` wants it; "rapidocr" is for
        all that read PP-OCR's files.
    Raises: WeightsError for weights that cannot be read, another suffix than `.onnx`, or a graph that does not answer
        as PyTorch does.
    """
    if out.suffix != SUFFIX:
        raise WeightsError(f"{out}: expected a file to write that ends in {SUFFIX}")
    detector, own, _ = load_detector(weights, model)
    card = dataclasses.replace(own, normalize=HALF) if normalize == "inside" else own
    graph = to_onnx(detector, own.normalize, card.normalize, card.to_metadata(), one=reader == "opencv")
    with whole_file(out) as aside:
        aside.write_bytes(graph.SerializeToString())
    write_text(out.with_suffix(".json"), json.dumps(to_plain(card), indent=2) + "\n")
    keys, notes = rapidocr_settings(out, card)
    settings = out.with_suffix(".rapidocr.yaml")
    head = (
        f"# {out.name} in RapidOCR 3, as it was evaluated in training:\n"
        f"#   RapidOCR(params=yaml.safe_load(open({settings.name!r})))\n"
    )
    write_text(settings, head + yaml.safe_dump(keys, sort_keys=False))
    return Exported(out, card, settings, notes)


def rapidocr_settings(path: Path, card: ModelCard) -> tuple[dict[str, object], tuple[str, ...]]:
    """RapidOCR's keys for a file with this card, and what it has no keys for."""
    resize, cuts = card.resize, card.postprocess
    notes = []
    if resize.image_shape is not None or resize.limit_type not in ("min", "max"):
        notes.append(f"RapidOCR knows no such rule as `{resize}`: its own is used, longest or shortest side")
    if cuts.box_type != "quad":
        notes.append("RapidOCR gives quads, this file was trained for polygons (postprocess.box_type=poly)")
    keys: dict[str, object] = {
        "Det.model_path": str(path.resolve()),
        "Det.mean": list(card.normalize.mean),
        "Det.std": list(card.normalize.std),
    }
    if not notes:
        keys |= {"Det.limit_side_len": resize.limit_side_len, "Det.limit_type": resize.limit_type}
    keys |= {
        "Det.thresh": cuts.thresh,
        "Det.box_thresh": cuts.box_thresh,
        "Det.max_candidates": cuts.max_candidates,
        "Det.unclip_ratio": cuts.unclip_ratio,
        "Det.use_dilation": cuts.use_dilation,
        "Det.score_mode": cuts.score_mode,
    }
    return keys, tuple(notes)
