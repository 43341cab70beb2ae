"""A detector with its card as one file, and any file as a detector."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ocr_ray.data.normalize import NormalizeConfig
from ocr_ray.data.resize import ResizeConfig
from ocr_ray.errors import WeightsError
from ocr_ray.model_card import ModelCard, Origin, load_detector, save_detector
from ocr_ray.models.detector import Detector, DetectorConfig
from ocr_ray.models.lkpan import LKPANConfig
from ocr_ray.models.resnet_vd import ResNetVdConfig
from ocr_ray.models.rse_fpn import RSEFPNConfig
from ocr_ray.postprocess import PostprocessConfig
from ocr_ray.weights.extract import convert, extract, write_weights
from ocr_ray.weights.load import read_weights

SMALL = DetectorConfig(ResNetVdConfig(layers=18, width=0.25), LKPANConfig(out_channels=32, mode="lite"))
CARD = ModelCard(
    detector=SMALL,
    normalize=NormalizeConfig(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
    resize=ResizeConfig(limit_side_len=960, limit_type="max"),
    postprocess=PostprocessConfig(thresh=0.25, box_thresh=0.55, unclip_ratio=1.75, box_type="poly"),
    origin=Origin(0.625, "Student2", "cml", "run-7", 12, "c0ffee", "d1ce"),
)


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(0)
    return Detector(SMALL)


def test_the_card_survives_its_metadata() -> None:
    metadata = CARD.to_metadata()
    assert all(isinstance(text, str) for text in metadata.values())
    assert ModelCard.from_metadata(metadata, "a file") == CARD
    assert ModelCard.from_metadata(ModelCard().to_metadata(), "a file") == ModelCard()
    assert ModelCard.from_metadata({"format": "pt"}, "a file") == ModelCard()


def test_the_metadata_can_be_read_by_others() -> None:
    metadata = CARD.to_metadata()
    assert metadata["format"] == "ocr_ray detector 1"
    assert json.loads(metadata["detector"])["backbone"] == {"kind": "resnet_vd", "layers": 18, "width": 0.25}
    assert json.loads(metadata["resize"])["limit_type"] == "max"
    assert json.loads(metadata["postprocess"])["unclip_ratio"] == 1.75
    assert json.loads(metadata["normalize"])["mean"] == [0.5, 0.4, 0.3]
    assert json.loads(metadata["origin"])["hmean"] == 0.625


@torch.no_grad()
def test_a_saved_detector_comes_back_with_its_card(tmp_path: Path, detector: Detector) -> None:
    path = tmp_path / "best" / "student.safetensors"
    save_detector(path, detector, CARD)
    loaded, card, coverage = load_detector(path)
    assert card == CARD
    assert coverage.whole
    assert not loaded.training
    images = torch.randn(1, 3, 64, 96)
    assert torch.equal(loaded.shrink_map(images), detector.eval().shrink_map(images))
    state = detector.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


def test_what_shapes_do_not_show_is_in_the_card(tmp_path: Path) -> None:
    cfg = DetectorConfig(neck=RSEFPNConfig(out_channels=32, shortcut=False))
    save_detector(tmp_path / "a.safetensors", Detector(cfg), ModelCard(cfg))
    loaded, card, _ = load_detector(tmp_path / "a.safetensors")
    assert card.detector == cfg
    assert loaded.neck.ins_conv[0].shortcut is False  # type: ignore[union-attr, operator]


def test_a_file_without_a_card_gets_one(tmp_path: Path, detector: Detector) -> None:
    save_detector(tmp_path / "a.pdparams", detector, CARD)
    assert load_detector(tmp_path / "a.pdparams")[1] == CARD  # that lies beside it
    (tmp_path / "a.pdparams.json").unlink()
    _, card, coverage = load_detector(tmp_path / "a.pdparams")
    assert card == ModelCard(SMALL, origin=Origin(source=str(tmp_path / "a.pdparams")))
    assert coverage.whole


def test_the_threshold_branch_may_be_absent_and_the_card_says_so(tmp_path: Path, detector: Detector) -> None:
    save_detector(tmp_path / "a.pdparams", detector, CARD)
    arrays = read_weights(tmp_path / "a.pdparams").arrays[""]
    used = {name: array for name, array in arrays.items() if not name.startswith("head.thresh.")}
    write_weights(tmp_path / "b.safetensors", {"": used}, CARD.to_metadata())
    loaded, card, coverage = load_detector(tmp_path / "b.safetensors")
    assert card.origin.new_parts == ("head.thresh",)
    assert card.origin.hmean == CARD.origin.hmean
    assert len(coverage.missing) == 13
    assert torch.equal(loaded.head.binarize.conv1.weight, detector.head.binarize.conv1.weight)


def test_anything_else_that_is_absent_is_an_error_unless_named(tmp_path: Path, detector: Detector) -> None:
    save_detector(tmp_path / "a.safetensors", detector, CARD)
    arrays = read_weights(tmp_path / "a.safetensors").arrays[""]
    without = {name: array for name, array in arrays.items() if not name.startswith("neck.pan_lat_conv.")}
    write_weights(tmp_path / "b.safetensors", {"": without}, CARD.to_metadata())
    with pytest.raises(
        WeightsError, match=r"b\.safetensors into the detector: .* missing neck\.pan_lat_conv\.\* \(44\)"
    ):
        load_detector(tmp_path / "b.safetensors")
    _, card, _ = load_detector(tmp_path / "b.safetensors", may_be_new=["neck.pan_lat_conv"])
    assert card.origin.new_parts == ("neck.pan_lat_conv",)


def test_a_card_that_does_not_fit_its_weights_is_an_error(tmp_path: Path, detector: Detector) -> None:
    save_detector(tmp_path / "a.safetensors", detector, ModelCard(DetectorConfig()))
    with pytest.raises(WeightsError, match=r"a\.safetensors into the detector: .* misshapen|unexpected"):
        load_detector(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("detector", "{", r"a\.safetensors: model card: detector: not JSON"),
        ("detector", '{"backbone": {"kind": "vit"}}', r"a\.safetensors: model card: detector: backbone\.kind: 'vit'"),
        ("resize", '{"limit_sid_len": 3}', r"a\.safetensors: model card: resize: limit_sid_len"),
        ("postprocess", '{"thresh": 3}', r"a\.safetensors: model card: postprocess: postprocess\.thresh: expected"),
        ("normalize", "[]", r"a\.safetensors: model card: normalize: expected a mapping"),
        ("detector", "[" * 200_000, r"a\.safetensors: model card: detector: not JSON: maximum recursion"),
        ("detector", "9" * 5000, r"a\.safetensors: model card: detector: not JSON: Exceeds the limit"),
        ("origin", '{"run": ' + "[" * 500 + "]" * 500 + "}", r"model card: origin: expected at most 8 levels"),
        ("detector", '{"backbone": {"scale": Infinity}}', r"backbone\.scale: expected more than 0 and at most 64"),
    ],
)
def test_a_broken_card_is_one_line(tmp_path: Path, detector: Detector, key: str, text: str, said: str) -> None:
    save_detector(tmp_path / "good.safetensors", detector, CARD)
    arrays = read_weights(tmp_path / "good.safetensors").arrays
    write_weights(tmp_path / "a.safetensors", arrays, {**CARD.to_metadata(), key: text})
    with pytest.raises(WeightsError, match=said) as caught:
        load_detector(tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)


def test_a_card_cannot_ask_for_what_only_this_machine_knows(
    tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "s3cret")
    save_detector(tmp_path / "good.safetensors", detector, CARD)
    arrays = read_weights(tmp_path / "good.safetensors").arrays
    for text in ('{"run": "${oc.env:MY_SECRET}"}', '{"new_parts": ["\\u0024{oc.env:MY_SECRET}"]}'):
        write_weights(tmp_path / "a.safetensors", arrays, {**CARD.to_metadata(), "origin": text})
        with pytest.raises(
            WeightsError, match=r"a\.safetensors: model card: origin: .*, an interpolation; refused"
        ) as caught:
            load_detector(tmp_path / "a.safetensors")
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("scale", "said"),
    [(2000, r"a\.safetensors: model card: detector: backbone\.scale: expected .* at most 64"), (60, "misshapen")],
)
def test_a_card_of_a_giant_is_refused_before_a_giant_is_made(
    tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch, scale: int, said: str
) -> None:
    arrays = {name: tensor.numpy() for name, tensor in detector.state_dict().items()}
    metadata = {"detector": json.dumps({"backbone": {"kind": "mobilenet_v3", "scale": scale}})}
    write_weights(tmp_path / "a.safetensors", {"": arrays}, metadata)
    made: list[str] = []
    monkeypatch.setattr(torch.nn.init, "normal_", lambda weight, std: made.append(weight.device.type))
    with pytest.raises(WeightsError, match=said):
        load_detector(tmp_path / "a.safetensors")
    assert set(made) <= {"meta"}


def test_a_sub_model_is_chosen_by_name(tmp_path: Path, detector: Detector) -> None:
    arrays = {name: tensor.numpy() for name, tensor in detector.state_dict().items()}
    student = {name: tensor.numpy() for name, tensor in Detector(DetectorConfig()).state_dict().items()}
    metadata = {"normalize": CARD.to_metadata()["normalize"]}
    write_weights(tmp_path / "model.safetensors", {"Student": student, "Teacher": arrays}, metadata)
    _, card, coverage = load_detector(tmp_path)
    assert card.detector == DetectorConfig()
    assert coverage.what.endswith("(Student) into the detector")
    assert card.normalize == CARD.normalize
    loaded, card, _ = load_detector(tmp_path, "Teacher")
    assert card.detector == SMALL
    np.testing.assert_array_equal(loaded.head.thresh.conv3.bias.detach(), arrays["head.thresh.conv3.bias"])


def test_extraction_and_conversion_keep_the_card(tmp_path: Path, detector: Detector) -> None:
    save_detector(tmp_path / "a.safetensors", detector, CARD)
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert load_detector(tmp_path / "b.safetensors")[1] == CARD
    metadata = CARD.to_metadata()
    metadata["Student2.detector"] = metadata.pop("detector")
    arrays = {name: tensor.numpy() for name, tensor in detector.state_dict().items()}
    write_weights(tmp_path / "pair.safetensors", {"Student2": arrays}, metadata)
    extract(tmp_path / "pair.safetensors", "Student2", tmp_path / "c.safetensors")
    assert load_detector(tmp_path / "c.safetensors")[1] == CARD


def test_loading_leaves_the_random_numbers_where_they_were(tmp_path: Path, detector: Detector) -> None:
    save_detector(tmp_path / "a.safetensors", detector, CARD)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_detector(tmp_path / "a.safetensors")
    assert torch.equal(torch.rand(3), expected)


def test_a_suffix_that_is_not_written_is_refused(tmp_path: Path, detector: Detector) -> None:
    with pytest.raises(WeightsError, match=r"a\.pt: expected a file to write"):
        save_detector(tmp_path / "a.pt", detector, CARD)
