"""Photographs with their labels where there are any, else rendered pictures of the same size."""

import os
from dataclasses import dataclass
from pathlib import Path

from ocr_ray.data.labels import Sample, read_labels
from ocr_ray.data.synth import SynthConfig, render_set

PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Pictures:
    """Samples to train on, the folder and label file that they come from, and what they are, in a few words."""

    samples: list[Sample]
    label_file: Path
    what: str


def find_pictures(number: int, folder: Path) -> Pictures:
    """`number` photographs of ICDAR2015, evenly spaced, from OCR_RAY_DATA or `../shared/data` beside the project.

    Where there are none, pictures of 1280x720 with about as many words are rendered into `folder`.
    """
    data = Path(os.environ.get("OCR_RAY_DATA", PROJECT.parent / "shared" / "data"))
    label_file = data / "icdar2015" / "train_label.txt"
    if label_file.is_file():
        samples = read_labels(label_file)
        taken = [samples[i * len(samples) // number] for i in range(min(number, len(samples)))]
        return Pictures(taken, label_file, f"{len(taken)} photographs of ICDAR2015")
    words = SynthConfig(
        train=number, val=1, width=1280, height=720, min_words=8, max_words=16, curved=0.0, difficulty="hard"
    )
    label_file, _ = render_set(folder / "rendered", words, seed=1)
    return Pictures(read_labels(label_file), label_file, f"{number} RENDERED pictures of 1280x720, no photographs here")
