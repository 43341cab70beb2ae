"""What a reader has to be told about a file, in its own words."""

from pathlib import Path

import yaml

from ocr_ray.files import write_text
from ocr_ray.model_card import ModelCard

SUFFIX = ".rapidocr.yaml"


def rapidocr_settings(path: Path, card: ModelCard) -> tuple[dict[str, object], tuple[str, ...]]:
    """RapidOCR 3's keys for a file with this card, and what it has no keys for."""
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
    # It otherwise brings a longest side over 2000 pixels to that, and pads strips, before its detector looks.
    keys |= {"Global.use_preprocess_img": False, "Global.use_vertical_padding": False}
    keys |= {
        "Det.thresh": cuts.thresh,
        "Det.box_thresh": cuts.box_thresh,
        "Det.max_candidates": cuts.max_candidates,
        "Det.unclip_ratio": cuts.unclip_ratio,
        "Det.use_dilation": cuts.use_dilation,
        "Det.score_mode": cuts.score_mode,
    }
    return keys, tuple(notes)


def write_settings(path: Path, card: ModelCard) -> Path:
    """Writes them beside the ONNX file `path`, to be read by `RapidOCR(params=yaml.safe_load(...))`."""
    keys, _ = rapidocr_settings(path, card)
    out = path.with_suffix(SUFFIX)
    head = (
        f"# {path.name} in RapidOCR 3, by the settings in its metadata:\n"
        f"#   RapidOCR(params=yaml.safe_load(open({str(out.resolve())!r})))\n"
        "# Det.model_path is where the file lies now: change it when you move the file.\n"
    )
    write_text(out, head + yaml.safe_dump(keys, sort_keys=False))
    return out
