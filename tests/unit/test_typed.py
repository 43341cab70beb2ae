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
        ({"lr.x": 2}, "f.yaml: lr"),
    ],
)
def test_a_mistake_is_one_line_with_its_key(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_values(Recipe(), values, "f.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
