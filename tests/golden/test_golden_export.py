"""The released student, exported: the programs that read it find on photographs what PyTorch finds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ocr_ray.data.images import read_image
from ocr_ray.data.labels import Sample, read_labels
from ocr_ray.data.resize import resize_for_test
from ocr_ray.engine.evaluate import shrink_maps
from ocr_ray.export.write import HALF, Exported, Int8, export
from ocr_ray.model_card import load_detector, load_for_use
from ocr_ray.models.onnx_detector import OnnxDetector
from ocr_ray.predict import evaluate_file

STUDENT = "ppocrv3_det_student_real.npz"
PICTURES = 3


@pytest.fixture(scope="module")
def labels(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a few photographs; their paths are relative to `data_dir / "icdar2015"`."""
    lines = (data_dir / "icdar2015/val_label.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    some = tmp_path_factory.mktemp("labels") / "some.txt"
    some.write_text("".join(lines[4 : 4 + PICTURES]), encoding="utf-8")
    return some


@pytest.fixture(scope="module")
def samples(labels: Path, data_dir: Path) -> list[Sample]:
    return read_labels(labels, data_dir / "icdar2015")


@pytest.fixture(scope="module")
def exported(
    golden_file: Callable[[str], Path], samples: list[Sample], tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    return export(golden_file(STUDENT), tmp_path_factory.mktemp("out") / "student.onnx", gate=samples)


def test_all_readers_with_the_files_settings_find_what_pytorch_finds(exported: Exported) -> None:
    gate = exported.gate
    assert gate is not None
    assert gate.passed
    assert gate.absent == ()
    assert gate.expected.matched > 3
    held = [(r.reader.name.split()[0], r.score) for r in gate.readings if r.reader.same]
    assert held == [("onnxruntime", gate.expected), ("RapidOCR", gate.expected)]
    others = {(r.reader.name.split()[0], r.reader.settings): r.score for r in gate.readings if not r.reader.same}
    assert others.keys() == {("RapidOCR", "its own"), ("OpenCV", "the file's, its own rules")}
    assert all(score.matched for score in others.values())  # other rules, and yet they find text
    (opencv,) = (r for r in gate.readings if r.map_off is not None)
    assert opencv.reader.name.startswith("OpenCV")
    assert opencv.map_off is not None
    assert 0 < opencv.map_off < 1e-3  # what it sees is what PyTorch sees
    assert exported.path.name == "student.onnx"


@pytest.mark.parametrize("normalize", ["outside", "inside"])
def test_maps_of_photographs_are_pytorchs(
    normalize: str, golden_file: Callable[[str], Path], samples: list[Sample], tmp_path: Path
) -> None:
    detector, own, _ = load_detector(golden_file(STUDENT))
    export(golden_file(STUDENT), tmp_path / "x.onnx", normalize=normalize)  # type: ignore[arg-type]
    runs, card, _ = load_for_use(tmp_path / "x.onnx")
    assert isinstance(runs, OnnxDetector)
    assert card.normalize == (HALF if normalize == "inside" else own.normalize)
    assert (card.resize, card.postprocess) == (own.resize, own.postprocess)
    for sample in samples:
        picture = resize_for_test(read_image(sample.image), card.resize)[0]
        given = shrink_maps(runs, [picture], card.normalize, torch.device("cpu"))
        wanted = shrink_maps(detector, [picture], own.normalize, torch.device("cpu"))
        assert wanted.max() > 0.9
        np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-4)


def test_the_file_is_evaluated_like_any_other(exported: Exported, labels: Path, data_dir: Path) -> None:
    found = evaluate_file(exported.path, labels, data_dir / "icdar2015", progress=False)
    assert exported.gate is not None
    assert found.score == exported.gate.expected


def test_integers_are_smaller_and_find_text(
    golden_file: Callable[[str], Path], samples: list[Sample], tmp_path: Path
) -> None:
    small = export(golden_file(STUDENT), tmp_path / "small.onnx", gate=samples[:1], int8=Int8(tuple(samples[1:2]), 0.5))
    found = small.quantised
    assert found is not None
    assert small.gate is not None
    assert small.gate.passed
    assert found.integers.size < 0.6 * found.floats.size
    assert found.integers.hmean > 0
    assert small.path.stat().st_size == found.integers.size
    assert load_for_use(small.path)[1] == small.card
    assert str(small.card.origin.quantised).startswith("int8, hmean ")
