"""Exported files on a small random net: what is in them, what lies beside them, and what is refused."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from numpy.typing import NDArray

from ocr_ray.data.labels import Sample, read_labels
from ocr_ray.data.normalize import normalize
from ocr_ray.data.resize import ResizeConfig, resize_for_test
from ocr_ray.engine.evaluate import shrink_maps
from ocr_ray.errors import ConfigError, UserError, WeightsError
from ocr_ray.export.gate import Gate, hold_to
from ocr_ray.export.int8 import Measured, Quantised
from ocr_ray.export.readers import Reader
from ocr_ray.export.settings import rapidocr_settings
from ocr_ray.export.write import HALF, Int8, export
from ocr_ray.metrics import Score
from ocr_ray.model_card import ModelCard, Origin, load_detector, load_for_use, read_card, save_detector
from ocr_ray.models.detector import Detector
from ocr_ray.postprocess import PostprocessConfig
from ocr_ray.weights.extract import convert

CARD = ModelCard(
    resize=ResizeConfig(limit_side_len=320, limit_type="max"),
    postprocess=PostprocessConfig(box_thresh=0.55, unclip_ratio=1.7, use_dilation=True),
    origin=Origin(hmean=0.5, run="a run", config_digest="c0ffee"),
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "student.safetensors"
    save_detector(path, Detector(CARD.detector), CARD)
    return path


@pytest.fixture(scope="module")
def file(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(weights, tmp_path_factory.mktemp("out") / "student.onnx").path


def pictures(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_card_travels_in_it(file: Path, weights: Path) -> None:
    assert read_card(file) == read_card(weights) == load_for_use(file)[1]
    assert {p.name for p in file.parent.iterdir()} == {"student.onnx", "student.rapidocr.yaml"}


def test_batch_height_and_width_are_open_and_answers_are_pytorchs(file: Path, weights: Path) -> None:
    detector, card, _ = load_detector(weights)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 32, 64), (3, 3, 96, 32)):
        images = normalize(pictures(*shape), card.normalize)
        (maps,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(maps[:, 0], detector.shrink_map(images).numpy(), rtol=0, atol=1e-4)


def test_a_normalisation_inside_leaves_borders_as_they_are(weights: Path, tmp_path: Path) -> None:
    """Folded into the first convolution it would change what zeros beyond the border mean: there it is held as well."""
    detector, own, _ = load_detector(weights)
    exported = export(weights, tmp_path / "x.onnx", normalize="inside")
    given = pictures(1, 3, 64, 64)
    runs, card, _ = load_for_use(exported.path)
    assert card.normalize == HALF
    with torch.no_grad():
        wanted = detector.shrink_map(normalize(given, own.normalize)).numpy()
    np.testing.assert_allclose(runs.shrink_map(normalize(given, HALF)).numpy(), wanted, rtol=0, atol=1e-4)


def test_opencv_takes_the_file_that_is_made_for_it(weights: Path, tmp_path: Path) -> None:
    path = export(weights, tmp_path / "x.onnx", reader="opencv").path
    net = cv2.dnn.TextDetectionModel_DB(str(path))
    net.setInputSize(64, 96).setInputScale([1 / 255] * 3)  # type: ignore[call-overload]
    net.setBinaryThreshold(0.3).setPolygonThreshold(0.5).setUnclipRatio(1.5).setMaxCandidates(10)
    net.detect(pictures(96, 64, 3).numpy())  # a random net finds nothing, and it does not raise
    assert not path.with_suffix(".rapidocr.yaml").exists()
    runs, card, _ = load_for_use(path)  # and we run it ourselves
    assert runs.shrink_map(normalize(pictures(1, 3, 32, 64), card.normalize)).shape == (1, 32, 64)


def test_rapidocrs_settings_are_its_own_keys(file: Path) -> None:
    rapidocr = pytest.importorskip("rapidocr")
    keys = yaml.safe_load(file.with_suffix(".rapidocr.yaml").read_text())
    assert keys["Det.box_thresh"] == 0.55
    assert keys["Det.limit_type"] == "max"
    engine = rapidocr.RapidOCR(params={"Global.log_level": "error", **keys})  # raises for a key that it does not know
    engine(pictures(64, 96, 3).numpy(), use_det=True, use_cls=False, use_rec=False)
    assert engine.text_det.postprocess_op.unclip_ratio == 1.7


def test_what_rapidocr_cannot_be_told_is_said() -> None:
    card = ModelCard(resize=ResizeConfig(limit_type="resize_long"), postprocess=PostprocessConfig(box_type="poly"))
    keys, notes = rapidocr_settings(Path("x.onnx"), card)
    assert "Det.limit_type" not in keys
    assert len(notes) == 2


def test_other_suffixes_are_refused_before_anything_is_written(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"x\.pt: expected a file to write that ends in \.onnx"):
        export(weights, tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())


def test_the_metadata_of_a_stranger_are_not_ours(tmp_path: Path, file: Path) -> None:
    graph = onnx.load(str(file))
    del graph.metadata_props[:]
    onnx.save(graph, str(tmp_path / "x.onnx"))
    with pytest.raises(WeightsError, match="only the released PP-OCRv3 detector is known"):
        load_for_use(tmp_path / "x.onnx")
    with pytest.raises(WeightsError, match="does not say where it comes from"):
        read_card(tmp_path / "x.onnx")


def finds(name: str, samples: list[Sample], share: float, same: bool = True) -> Reader:
    """A program that gives the first regions of each picture, a share of them."""
    by_size = {cv2.imread(str(s.image)).tobytes(): s.polygons[: round(share * len(s.polygons))] for s in samples}
    return Reader(name, "the file's", lambda image: list(by_size[image.tobytes()]), same)


def test_the_gate_fails_where_a_reader_with_the_same_settings_finds_less(weights: Path, small_set: Path) -> None:
    samples = read_labels(small_set / "val_label.txt")
    detector, card, _ = load_detector(weights)  # finds nothing
    none, all_of_them = finds("none", samples, 0), finds("all", samples, 1)
    passed = hold_to("PyTorch", detector, card, [none, finds("its own", samples, 1, same=False)], samples, ())
    assert passed.passed
    assert [r.score.hmean for r in passed.readings] == [0, 1]
    assert passed.table().row_count == 3
    failed = hold_to("PyTorch", detector, card, [none, all_of_them], samples, ())
    assert not failed.passed
    assert [r.fails for r in failed.readings] == [False, True]
    assert failed.readings[1].difference == 1


@pytest.mark.parametrize(("off", "fails"), [(0.0, False), (0.0005, False), (0.1, True), (float("nan"), True)])
def test_a_reader_with_rules_of_its_own_is_held_to_its_map(
    weights: Path, small_set: Path, off: float, fails: bool
) -> None:
    samples = read_labels(small_set / "val_label.txt")[:2]
    detector, card, _ = load_detector(weights)

    def seen(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        resized, _ = resize_for_test(image, card.resize)
        found = shrink_maps(detector, [resized], card.normalize, torch.device("cpu"))[0]
        found[3, 5] += off
        return found

    reader = dataclasses.replace(finds("other rules", samples, 0, same=False), map_of=seen)
    gate = hold_to("PyTorch", detector, card, [reader], samples, ())
    assert gate.readings[0].fails == fails
    assert gate.passed != fails


def test_a_file_that_fails_lies_under_another_name(
    weights: Path, small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = read_labels(small_set / "val_label.txt")[:1]
    monkeypatch.setattr("ocr_ray.export.write.onnxruntime_reader", lambda *_: finds("x", samples, 1))
    exported = export(weights, tmp_path / "x.onnx", gate=samples)
    assert exported.gate is not None
    assert not exported.gate.passed
    assert exported.path == tmp_path / "x.failed.onnx"
    assert {p.name for p in tmp_path.iterdir()} == {"x.failed.onnx"}


def test_integers_that_lose_too_much_are_refused() -> None:
    def quantised(hmean: float) -> Quantised:
        floats, integers = Measured(4000, 0.2, 0.6), Measured(1000, 0.1, hmean)
        return Quantised(onnx.ModelProto(), ModelCard(), floats, integers, 8, 20, most_lost=0.01, seen=False)

    assert not quantised(0.591).refused
    assert not quantised(0.7).refused
    assert quantised(0.589).refused
    assert quantised(0.589).table().row_count == 3


def test_a_target_that_cannot_be_written_is_told_first_and_nothing_is_left(weights: Path, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.rapidocr.yaml", "c.failed.onnx"):
        (tmp_path / name).mkdir()
        with pytest.raises(UserError, match=rf"{name}: is a folder, expected a file to write"):
            export(weights, tmp_path / f"{name[0]}.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "b.rapidocr.yaml", "c.failed.onnx"]


def test_what_an_earlier_export_left_does_not_stay_beside_another_file(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "a.failed.onnx").write_bytes(b"of before")
    export(weights, tmp_path / "a.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "a.rapidocr.yaml"]
    export(weights, tmp_path / "a.onnx", reader="opencv")  # RapidOCR cannot read that one
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]


def test_an_exported_file_is_for_readers(weights: Path, tmp_path: Path) -> None:
    export(weights, tmp_path / "a.onnx")
    said = r"a\.onnx: was exported by ocr-ray, its BatchNorm folded away"
    with pytest.raises(WeightsError, match=said):
        load_detector(tmp_path / "a.onnx")
    with pytest.raises(WeightsError, match=said):
        convert(tmp_path / "a.onnx", tmp_path / "b.safetensors")


@pytest.mark.parametrize("limit", [float("nan"), -1.0, 1.5])
def test_a_limit_that_is_none_is_refused(limit: float) -> None:
    with pytest.raises(ConfigError, match="--most-lost: expected a number from 0 to 1"):
        Int8((), limit)


def test_pdparams_have_their_card_beside_them(weights: Path, tmp_path: Path) -> None:
    convert(weights, tmp_path / "x.pdparams")
    assert read_card(tmp_path / "x.pdparams") == CARD
    assert load_detector(tmp_path / "x.pdparams")[1] == CARD  # what evaluates and exports heeds it
    convert(tmp_path / "x.pdparams", tmp_path / "back.safetensors")
    assert read_card(tmp_path / "back.safetensors") == CARD
    card = tmp_path / "x.pdparams.json"
    plain = json.loads(card.read_text())
    card.write_text(json.dumps({**plain, "origin": {"hmean": "high"}}))
    with pytest.raises(WeightsError, match="hmean"):
        read_card(tmp_path / "x.pdparams")
    card.write_text(json.dumps({**plain, "file_digest": "of another file"}))
    with pytest.raises(WeightsError, match=r"x\.pdparams: does not say where it comes from"):
        read_card(tmp_path / "x.pdparams")
    card.write_text("[]")
    with pytest.raises(WeightsError, match=r"x\.pdparams\.json: no card of a detector"):
        load_detector(tmp_path / "x.pdparams")


def test_a_gate_without_readers_says_so() -> None:
    assert Gate(Score(0, 0, 0, 0, 0, 0), "PyTorch", (), 1, ("RapidOCR was not asked",)).passed
