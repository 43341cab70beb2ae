from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from ocr_ray.errors import ConfigError
from ocr_ray.typed import flatten, from_plain, to_plain, with_values


@dataclass(frozen=True)
class Small:
    kind: Literal["small"] = "small"
    scale: float = 0.5


@dataclass(frozen=True)
class Large:
    kind: Literal["large"] = "large"
    layers: Literal[18, 50] = 50


@dataclass(frozen=True)
class Net:
    part: Small | Large = field(default_factory=Small)
    kernels: tuple[int, int] = (3, 2)


@dataclass(frozen=True)
class Recipe:
    net: Net = field(default_factory=Net)
    lr: float = 1e-3
    clip: float | None = None
    labels: tuple[str, ...] = ()
    other: Small | None = None

    def __post_init__(self) -> None:
        if self.lr < 0:
            raise ConfigError(f"lr: expected a number of at least 0, found {self.lr:g}")


def test_values_reach_nested_configs_and_union_members_by_kind() -> None:
    cfg = from_plain(Recipe, {"net": {"part": {"kind": "large", "layers": 18}, "kernels": [7, 2]}, "lr": 1}, "f.yaml")
    assert cfg == Recipe(Net(Large(layers=18), (7, 2)), lr=1.0)


def test_a_member_named_again_keeps_its_values() -> None:
    cfg = Recipe(Net(Large(layers=18)))
    assert with_values(cfg, {"net.part.kind": "large"}, "f").net.part == Large(layers=18)


def test_a_text_for_a_tuple_of_texts_is_a_tuple_of_one() -> None:
    assert with_values(Recipe(), {"labels": "a.txt"}, "f").labels == ("a.txt",)


def test_plain_data_makes_the_round_trip() -> None:
    cfg = Recipe(Net(Large(), (9, 2)), clip=5.0, labels=("a", "b"))
    assert from_plain(Recipe, to_plain(cfg), "f") == cfg
    assert flatten(cfg)["net.part.layers"] == 50


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lrr": 1}, "f.yaml: lrr: Key 'lrr' is not a key of 'Recipe'. Did you mean: 'lr'?"),
        ({"net.part.scael": 1}, "f.yaml: net.part.scael: Key 'scael' is not a key of 'Small'. Did you mean: 'scale'?"),
        ({"lr": "fast"}, "f.yaml: lr: Value 'fast' of type 'str' could not be converted to Float"),
        ({"net.part.kind": "huge"}, "f.yaml: net.part.kind: 'huge' is not one of large, small"),
        ({"net.kernels": [1]}, "f.yaml: net.kernels: "),
        ({"lr": 1, "lr.x": 2}, "f.yaml: lr.x: lr is given a value of its own as well"),
        ({"lr.x": 2}, "f.yaml: lr: expected a value, found keys (x)"),
        ({"lr": -1}, "f.yaml: lr: expected a number of at least 0, found -1"),
        ({"net": 1}, "f.yaml: net: is a group, expected one of its keys, e.g. net.part.kind"),
        ({"net": None}, "f.yaml: net: is a group, expected one of its keys, e.g. net.part.kind"),
        ({"net.part": "large"}, "f.yaml: net.part: is a group, expected one of its keys, e.g. net.part.kind"),
        ({"other": [1]}, "f.yaml: other: is a group, expected one of its keys, e.g. other.kind"),
        ({"other.scael": 1}, "f.yaml: other.scael: Key 'scael' is not a key of 'Small'. Did you mean: 'scale'?"),
        ({"lr": "???"}, "f.yaml: lr: a value is needed"),
        ({"labels": "???"}, "f.yaml: labels: a value is needed"),
        ({"labels": ["a", "???"]}, "f.yaml: labels: a value is needed"),
        ({"labels": 1}, "f.yaml: labels: expected a list, found 1"),
        ({"labels": {"a": "b"}}, "f.yaml: labels: expected a list, found {'a': 'b'}"),
        ({"labels": [["a"]]}, "f.yaml: labels: expected plain values, found [['a']]"),
    ],
)
def test_a_mistake_is_one_line_with_its_key(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_values(Recipe(), values, "f.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("f.yaml") == 1


def test_what_may_be_absent_may_be_made_absent_again() -> None:
    cfg = with_values(Recipe(), {"other.scale": 2}, "f")
    assert cfg.other == Small(scale=2.0)
    assert with_values(cfg, {"other": None, "clip": None}, "f").other is None


def test_a_value_may_name_another_key_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCR_RAY_TEST_LABELS", "from/the/environment.txt")
    values = {"lr": 0.5, "clip": "${lr}", "labels": ["${oc.env:OCR_RAY_TEST_LABELS}"], "other": "${net.part}"}
    cfg = with_values(Recipe(), values, "f")
    assert cfg == Recipe(lr=0.5, clip=0.5, labels=("from/the/environment.txt",), other=Small())
    with pytest.raises(ConfigError, match=r"f: clip: Interpolation key 'nothing' not found"):
        with_values(Recipe(), {"clip": "${nothing}"}, "f")
