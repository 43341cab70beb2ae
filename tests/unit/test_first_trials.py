"""What a sweep tries first: the config itself, neighbours of it, or a grid."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_ray.config import CMLConfig
from ocr_ray.distributions import QUniform, grid_values, holds
from ocr_ray.errors import ConfigError
from ocr_ray.search.first import FirstTrials, first_trials, grid_points
from ocr_ray.spaces import SearchSpace, space_from_plain
from ocr_ray.typed import with_values

WEIGHTS = {
    "optim.lr": {"loguniform": [1e-4, 1e-2]},
    "loss.distill.weight": {"loguniform": [0.125, 8]},
    "loss.db.beta": {"loguniform": [6, 80]},  # its half, 5, lies outside
    "loss.db.alpha": {"uniform": [1, 20]},
}
GRID = {"loss.distill.weight": {"loguniform": [0.25, 4], "points": 3}, "loss.db.main": {"choice": ["dice", "bce"]}}


def space_of(plain: dict[str, Any]) -> SearchSpace:
    return space_from_plain(plain, CMLConfig(), "x.yaml")


def first_of(plain: dict[str, Any], **sweep: Any) -> FirstTrials:
    cfg = with_values(CMLConfig(), {f"sweep.{key}": value for key, value in sweep.items()}, "test")
    return first_trials(cfg, space_of(plain))


def test_neighbours_differ_in_one_key_by_a_factor_of_two_and_lie_inside() -> None:
    space = space_of(WEIGHTS)
    own = space.own_values(CMLConfig())
    assert own is not None
    changes = [
        {key: value for key, value in point.items() if value != own[key]} for point in space.neighbours(own)
    ]  # fmt: skip
    assert changes == [
        {"loss.distill.weight": 0.5},
        {"loss.distill.weight": 2.0},
        {"loss.db.beta": 20.0},
        {"optim.lr": 5e-4},
        {"optim.lr": 2e-3},
    ]


@pytest.mark.parametrize(
    ("sweep", "points"),
    [
        ({"trials": 1}, 1),
        ({"trials": 3}, 1),
        ({"trials": 4}, 2),
        ({"trials": 16}, 5),
        ({"trials": 400}, 5),
        ({"trials": 400, "neighbours": 9}, 6),  # there are no more
        ({"trials": 2, "neighbours": 9}, 2),
        ({"trials": 400, "neighbours": 0}, 1),
        ({"trials": 400, "default_first": False}, 0),
    ],
)
def test_a_quarter_of_a_sweep_goes_to_neighbours_unless_it_says_otherwise(sweep: dict[str, Any], points: int) -> None:
    first = first_of(WEIGHTS, **sweep)
    assert len(first.points) == points
    assert first.trials == sweep["trials"]
    assert first.points[:1] == ((first.control,) if first.control else ())


def test_a_config_outside_the_space_is_told() -> None:
    first = first_of({"optim.lr": {"uniform": [0.1, 0.2]}})
    assert (first.points, first.control) == ((), None)
    assert "lie outside the search space" in first.notes[0]


def test_a_grid_holds_every_combination_once_and_the_config_first() -> None:
    first = first_of(GRID, searcher="grid", trials=16)
    assert first.points[0] == {"loss.distill.weight": 1.0, "loss.db.main": "dice"} == first.control
    assert sorted(tuple(point.values()) for point in first.points) == [
        (weight, main) for weight in (0.25, 1.0, 4.0) for main in ("bce", "dice")
    ]
    assert first.trials == 6
    assert first.notes == ("note: 6 trials, not 16: the grid has 5 points after the 1 that go first",)


def test_a_grid_that_is_too_large_is_told_before_it_starts() -> None:
    first = first_of(GRID, searcher="grid", trials=4)
    assert len(first.points) == first.trials == 4
    assert first.notes == (
        "note: the grid has 5 points, and sweep.trials=4 leaves room for 3 of them after the 1 that go first, "
        "drawn evenly; sweep.trials=6 tries all",
    )
    assert first_of(GRID, searcher="grid", trials=6).notes == ()


def test_a_grid_over_reals_wants_their_number() -> None:
    with pytest.raises(ConfigError, match=r"x.yaml: optim.lr: sweep.searcher=grid needs the number of points"):
        first_of(WEIGHTS, searcher="grid")
    many = {key: {"uniform": [0.1, 0.9], "points": 1000} for key in ("loss.db.alpha", "loss.db.beta")}
    with pytest.raises(
        ConfigError, match=r"x.yaml: sweep.searcher=grid: expected at most 100000 points, found 1000000"
    ):
        grid_points(space_of(many))


@given(low=st.integers(-20, 20), steps=st.integers(1, 30), q=st.sampled_from([0.1, 0.25, 1.0, 3.0]))
def test_a_grid_of_steps_reaches_both_ends(low: int, steps: int, q: float) -> None:
    distribution = QUniform(low * q, (low + steps) * q, q)
    values = grid_values(distribution)
    assert values is not None
    assert len(values) == steps + 1
    assert all(holds(distribution, value) for value in values if value)
