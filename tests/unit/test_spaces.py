"""Search spaces: what loads, what is refused and how it is said."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from ray import tune

from ocr_ray.config import CMLConfig, DMLConfig, RecipeConfig, StudentConfig
from ocr_ray.demo import SPACE
from ocr_ray.distributions import (
    Choice,
    Distribution,
    Fixed,
    LogUniform,
    QUniform,
    RandInt,
    Uniform,
    holds,
)
from ocr_ray.errors import ConfigError
from ocr_ray.search.first import grid_points
from ocr_ray.spaces import Condition, SearchSpace, load_space, space_from_plain
from ocr_ray.typed import flatten, with_values

SHIPPED = Path(__file__).resolve().parents[2] / "search_spaces"
RECIPE_OF: dict[str, RecipeConfig] = {
    "cml_full": CMLConfig(),
    "cml_loss_weights": CMLConfig(),
    "cml_lr": CMLConfig(),
    "demo": with_values(CMLConfig(), {"optim.lr": 0.01}, "the demo's rate"),
    "dml_teacher": DMLConfig(),
    "student_finetune": StudentConfig(),
    "student_pareto": StudentConfig(),
}


def space_of(plain: dict[str, Any], cfg: RecipeConfig | None = None) -> SearchSpace:
    return space_from_plain(plain, cfg or CMLConfig(), "x.yaml")


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_space_loads_and_holds_the_configs_own_values(path: Path) -> None:
    cfg = RECIPE_OF[path.stem]  # a new file needs a line above
    space = load_space(path, cfg)
    own = space.own_values(cfg)
    assert own == {key: flatten(cfg)[key] for key in space.varied}


def test_the_demos_file_is_the_space_that_the_demo_searches() -> None:
    cfg = RECIPE_OF["demo"]
    searched = space_from_plain(SPACE, cfg, "demo")
    assert load_space(SHIPPED / "demo.yaml", cfg).distributions == searched.distributions


def test_each_distribution_becomes_rays_domain_with_its_ends(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "optim.lr: {loguniform: [1e-4, 1e-2]}\n"
        "loss.db.alpha: {uniform: [1, 10]}\n"
        "loss.db.beta: {quniform: [2, 20, 2]}\n"
        "data.batch_size: {randint: [4, 9]}\n"
        "loss.db.main: {choice: [dice, bce]}\n"
        "optim.epochs: 30\n"
    )
    space = load_space(file, CMLConfig())
    assert dict(space.distributions) == {
        "optim.lr": LogUniform(1e-4, 1e-2),
        "loss.db.alpha": Uniform(1, 10),
        "loss.db.beta": QUniform(2, 20, 2),
        "data.batch_size": RandInt(4, 9),
        "loss.db.main": Choice(("dice", "bce")),
        "optim.epochs": Fixed(30),
    }
    domains = space.to_tune()
    draws = {key: [domain.sample() for _ in range(200)] for key, domain in domains.items() if key != "optim.epochs"}
    assert domains["optim.epochs"] == 30
    assert set(draws["data.batch_size"]) == {4, 5, 6, 7, 8}  # the upper end is not drawn
    assert set(draws["loss.db.beta"]) <= set(range(2, 21, 2))
    assert set(draws["loss.db.main"]) == {"dice", "bce"}
    assert all(1 <= v < 10 for v in draws["loss.db.alpha"])
    below = sum(v < 1e-3 for v in draws["optim.lr"])  # half of a logarithmic range; 200 fair coins
    assert 60 < below < 140
    assert isinstance(domains["optim.lr"], tune.search.sample.Float)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"loss.dml.wieght": {"uniform": [1, 2]}}, "x.yaml: loss.dml.wieght: .*Did you mean: 'weight'"),
        ({"loss.dml": {"uniform": [1, 2]}}, "x.yaml: loss.dml: is a group, expected one of its keys, e.g. loss.dml.w"),
        ({"optim.lr": {"loguniform": [0, 1]}}, "x.yaml: optim.lr: loguniform: expected a low end above 0, found 0"),
        ({"optim.lr": {"loguniform": [-1, 1]}}, "expected a low end above 0, found -1"),
        ({"optim.lr": {"uniform": [1, 0.5]}}, "x.yaml: optim.lr: uniform: expected low < high, found 1 and 0.5"),
        ({"optim.lr": {"uniform": [0.1, 0.1]}}, "expected low < high"),
        ({"optim.lr": {"uniform": [0.1]}}, "expected 2 numbers"),
        ({"optim.lr": {"uniform": [0.1, math.inf]}}, "expected 2 numbers"),
        ({"optim.lr": {"uniform": [True, 2]}}, "expected 2 numbers"),
        ({"optim.lr": {"uniform": 0.1}}, "uniform: expected a list, found 0.1"),
        ({"optim.lr": {"normal": [0, 1]}}, "normal is no distribution, expected one of loguniform"),
        ({"optim.lr": {}}, "expected one distribution"),
        ({"optim.lr": {"points": 3}}, "expected one distribution .*, found points"),
        ({"optim.lr": {"uniform": [0.1, 0.2], "points": 1}}, "points: expected a whole number of at least 2, found 1"),
        ({"data.batch_size": {"randint": [1, 4], "points": 2}}, "points: expected with loguniform or uniform only"),
        ({"optim.lr": [0.1, 0.2]}, r"expected \{choice: \[0.1, 0.2\]\} or one value, found a list"),
        ({"optim.lr": {"choice": []}}, "choice: expected numbers, texts or booleans"),
        ({"optim.lr": {"choice": [[1]]}}, "choice: expected numbers, texts or booleans"),
        ({"optim.lr": {"choice": ["high"]}}, "x.yaml: optim.lr: .*high"),
        ({"optim.epochs": {"uniform": [10, 20]}}, "x.yaml: optim.epochs: .*Integer"),
        ({"optim.epochs": {"randint": [10.5, 20]}}, "randint: expected two whole numbers"),
        ({"loss.db.beta": {"quniform": [1, 10, 4]}}, "quniform: expected ends that are multiples of 4, found 1"),
        ({"loss.db.beta": {"quniform": [1, 2, 5]}}, "quniform: expected a step above 0 and at most high - low"),
        ({"loss.db.main": {"choice": ["dice", "focal"]}}, "x.yaml: loss.db.main: .*focal"),
        ({"optim.lr": 0.1}, "expected at least one key with a distribution"),
        ({"sweep.seed": {"randint": [0, 9]}}, "x.yaml: sweep.seed: is no setting of the training"),
        ({"ray.num_workers": {"randint": [1, 3]}}, "is no setting of the training"),
        ({"data.batch_size": {"randint": [0, 9]}}, "x.yaml: data.batch_size: expected at least 1, found 0"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(plain: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        space_of(plain)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("x.yaml: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping"),
        ("- 1\n", "expected a mapping"),
        ("optim.lr: {uniform: [1, 2\n", "not a YAML file"),
        ("optim.lr: 1\noptim.lr: 2\n", "not a YAML file: .*duplicate key"),
    ],
)
def test_a_file_that_is_no_mapping(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_space(file, CMLConfig())
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.yaml: No such file"):
        load_space(tmp_path / "none.yaml", CMLConfig())
    with pytest.raises(ConfigError, match="directory"):
        load_space(tmp_path, CMLConfig())
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a YAML file"):
        load_space(tmp_path / "b.yaml", CMLConfig())


@pytest.mark.parametrize(
    ("plain", "reason"),
    [
        ({"loss.db.ohem_ratio": {"uniform": [1, 9]}}, "loss.db.main=dice"),
        ({"loss.distill.ohem_ratio": {"uniform": [1, 9]}}, "loss.distill.main=dice"),
        (
            {"loss.db.ohem_ratio": {"uniform": [1, 9]}, "loss.db.main": "bce", "loss.db.balance": False},
            "loss.db.balance=false",
        ),
        (
            {"data.augment.copy_paste.ratio": {"uniform": [0.1, 0.5]}, "data.augment.copy_paste.enabled": False},
            "data.augment.copy_paste.enabled=false",
        ),
        ({"loss.db.alpha": {"uniform": [1, 9]}, "loss.db.weight": 0}, "loss.db.weight=0"),
    ],
)
def test_a_number_that_decides_nothing_is_refused(plain: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=f"decides nothing here, since {reason}"):
        space_of(plain)


@pytest.mark.parametrize(
    "plain",
    [
        {"loss.db.ohem_ratio": {"uniform": [1, 9]}, "loss.db.main": "bce"},
        {"loss.db.ohem_ratio": {"uniform": [1, 9]}, "loss.db.main": {"choice": ["dice", "bce"]}},
        {"loss.db.alpha": {"uniform": [1, 9]}, "loss.db.weight": {"uniform": [0, 1]}},
        {"data.augment.copy_paste.ratio": {"uniform": [0.1, 0.5]}},  # CML pastes by itself
    ],
)
def test_it_is_taken_where_the_space_itself_brings_it_to_life(plain: dict[str, Any]) -> None:
    assert space_of(plain).varied


def test_keys_that_bound_one_another_are_tried_together() -> None:
    moved = {"data.augment.scale_min": {"uniform": [3.5, 4.0]}, "data.augment.scale_max": {"uniform": [4.5, 5.0]}}
    assert space_of(moved).varied == ("data.augment.scale_min", "data.augment.scale_max")


@pytest.mark.parametrize(
    ("distribution", "inside", "outside"),
    [
        (LogUniform(0.1, 10), [0.1, 1, 10], [0.09, 11, None, "1", True]),
        (Uniform(-1, 1), [-1, 0.5], [-1.1, 2]),
        (QUniform(1, 2, 0.25), [1, 1.25, 2], [1.1, 2.25]),
        (RandInt(3, 6), [3, 5], [6, 3.5, 2]),
        (Choice(("dice", 1, None)), ["dice", 1, None], ["bce", True]),
        (Fixed(3), [3], [4]),
    ],
)
def test_holds_knows_what_can_be_drawn(distribution: Distribution, inside: list[Any], outside: list[Any]) -> None:
    assert all(holds(distribution, value) for value in inside)
    assert not any(holds(distribution, value) for value in outside)


def test_own_values_are_none_when_one_lies_outside() -> None:
    space = space_of({"optim.lr": {"uniform": [0.1, 0.2]}, "loss.db.alpha": {"uniform": [1, 9]}})
    assert space.own_values(CMLConfig()) is None


CONDITIONAL = {
    "loss.db.main": {"choice": ["dice", "bce"]},
    "loss.db.ohem_ratio": {"loguniform": [1, 9], "when": {"loss.db.main": "bce"}},
}


def test_a_key_counts_only_where_its_condition_holds() -> None:
    space = space_of(CONDITIONAL)
    assert space.conditions == (Condition("loss.db.ohem_ratio", "loss.db.main", ("bce",)),)
    bce, dice = ({"loss.db.main": main, "loss.db.ohem_ratio": 7.5} for main in ("bce", "dice"))
    assert space.settled(bce) == bce
    assert space.settled(dice) == {"loss.db.main": "dice"}
    # in a trial where it does not count, the config's own value is in force
    assert with_values(CMLConfig(), space.settled(dice), "trial").loss.db.ohem_ratio == 3.0
    assert with_values(CMLConfig(), space.settled(bce), "trial").loss.db.ohem_ratio == 7.5
    assert space.identity()["loss.db.ohem_ratio"] == "loguniform [1, 9] when loss.db.main = bce"


def test_a_key_under_several_conditions_counts_where_all_hold() -> None:
    both = {"loss.db.main": "bce", "loss.db.balance": True}
    space = space_of(
        {
            "loss.db.main": {"choice": ["dice", "bce"]},
            "loss.db.balance": {"choice": [True, False]},
            "loss.db.ohem_ratio": {"uniform": [1, 9], "when": {"loss.db.main": ["bce"], "loss.db.balance": True}},
        }
    )
    for main in ("dice", "bce"):
        for balance in (True, False):
            drawn = {"loss.db.main": main, "loss.db.balance": balance, "loss.db.ohem_ratio": 2.0}
            assert ("loss.db.ohem_ratio" in space.settled(drawn)) == (drawn == {**both, "loss.db.ohem_ratio": 2.0})


def test_what_goes_first_and_the_grid_heed_conditions() -> None:
    space = space_of(CONDITIONAL)
    own = space.own_values(CMLConfig())
    assert own == {"loss.db.main": "dice", "loss.db.ohem_ratio": 3.0}
    assert space.neighbours(own) == []  # under dice the ratio decides nothing
    assert [p["loss.db.ohem_ratio"] for p in space.neighbours({**own, "loss.db.main": "bce"})] == [1.5, 6.0]
    with_points = {**CONDITIONAL, "loss.db.ohem_ratio": {**CONDITIONAL["loss.db.ohem_ratio"], "points": 3}}
    assert len(grid_points(space_of(with_points))) == 1 + 3
    outside = {**CONDITIONAL, "loss.db.ohem_ratio": {"uniform": [4, 9], "when": {"loss.db.main": "bce"}}}
    assert space_of(outside).own_values(CMLConfig()) == {"loss.db.main": "dice", "loss.db.ohem_ratio": 4.0}
    assert space_of(outside).own_values(with_values(CMLConfig(), {"loss.db.main": "bce"}, "test")) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"when": "bce"}, "ohem_ratio: when: expected {another.key: value}, found 'bce'"),
        ({"when": {}}, "ohem_ratio: when: expected {another.key: value}, found {}"),
        ({"when": {"loss.db.main": []}}, "when: loss.db.main: expected a value or a list of values, found []"),
        (
            {"when": {"loss.db.mian": "bce"}},
            "when: loss.db.mian: expected a key with a choice, randint or quniform, found",
        ),
        ({"when": {"optim.lr": 0.1}}, "expected a key with a choice, randint or quniform, found loguniform [0.01, 1]"),
        ({"when": {"loss.db.balance": True}}, "expected a key that is drawn in every trial, found one with a `when`"),
        ({"when": {"loss.db.main": "focal"}}, "expected what it may be drawn as, choice [dice, bce], found 'focal'"),
        ({"when": {"loss.db.main": "dice"}}, "ohem_ratio: decides nothing here, since loss.db.main=dice"),
        ({"when": {"loss.db.main": "bce"}, "loguniform": [-1, 2]}, "loguniform: expected a low end above 0"),
        ({"when": {"loss.db.main": "bce"}, "loguniform": None}, "loguniform: expected a list"),
    ],
)
def test_a_condition_that_cannot_be_is_one_line(changes: dict[str, Any], message: str) -> None:
    ratio = {"loguniform": [1, 9], **changes}
    balance = {"choice": [True, False], "when": {"loss.db.main": "bce"}}
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        space_of(
            {
                **CONDITIONAL,
                "optim.lr": {"loguniform": [0.01, 1]},
                "loss.db.balance": balance,
                "loss.db.ohem_ratio": ratio,
            }
        )
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("x.yaml: loss.db.ohem_ratio: ")


def test_a_conditional_key_is_tried_where_its_condition_holds() -> None:
    """The crop's ends are refused unless the other key has the value under which they are drawn."""
    plain = {
        "data.augment.scale_max": {"choice": [1.0, 3.0]},
        "data.augment.scale_min": {"uniform": [1.5, 2.5], "when": {"data.augment.scale_max": 3.0}},
    }
    assert space_of(plain, with_values(CMLConfig(), {"data.augment.scale_max": 2.0}, "test")).varied
    with pytest.raises(ConfigError, match="scale"):
        space_of({**plain, "data.augment.scale_min": {"uniform": [1.5, 2.5], "when": {"data.augment.scale_max": 1.0}}})


def test_the_example_in_a_shipped_space_works() -> None:
    lines = (SHIPPED / "cml_full.yaml").read_text().splitlines()
    example = [line.removeprefix("# ") for line in lines if line.startswith("# loss.db.")]
    plain = dict(OmegaConf.to_container(OmegaConf.create("\n".join(example))))  # type: ignore[arg-type]
    assert space_of(plain).conditions  # type: ignore[arg-type]
