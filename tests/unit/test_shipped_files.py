"""Every YAML that ships loads, says every key, and fits the recipe it is for."""

import re
from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ocr_ray.config import (
    RECIPES,
    RecipeConfig,
    config_digest,
    load_config,
    override,
    recipe_from_plain,
    to_yaml,
)
from ocr_ray.distributions import LogUniform, holds
from ocr_ray.show_space import read_to_show
from ocr_ray.spaces import SearchSpace, load_space
from ocr_ray.typed import flatten

PROJECT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((PROJECT / "configs").glob("*.yaml"))
SPACES = sorted((PROJECT / "search_spaces").glob("*.yaml"))


def recipe_of(space: Path) -> RecipeConfig:
    """The config that a shipped space is for."""
    recipe = next((name for name in ("dml", "student") if space.stem.startswith(name)), "cml")
    cfg = load_config(PROJECT / "configs" / f"ppocrv3_det_{recipe}.yaml")
    return override(cfg, ["optim.lr=0.01"]) if space.stem == "demo" else cfg


@cache
def space_in(path: Path) -> SearchSpace:
    return load_space(path, recipe_of(path))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_recipe_file_loads_and_says_every_number_under_loss_optim_and_data(path: Path) -> None:
    cfg = load_config(path)
    assert path.stem.endswith(cfg.recipe)
    said = flatten_plain(OmegaConf.to_container(OmegaConf.load(path)))
    silent = [
        key
        for key in flatten(cfg)
        if key.split(".")[0] in ("loss", "optim", "data")
        and key not in said
        and not key.endswith((".eps", ".max_tries"))
    ]
    assert [key for key in silent if "cache_mib" not in key and not key.endswith("distill.balance")] == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_config_makes_the_round_trip_through_yaml(path: Path) -> None:
    cfg = load_config(path)
    again = recipe_from_plain(dict(OmegaConf.to_container(OmegaConf.create(to_yaml(cfg)))), "again")  # type: ignore[arg-type, call-overload]
    assert again == cfg
    assert config_digest(again) == config_digest(cfg)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.__name__)
def test_a_recipe_made_in_python_is_that_of_its_file(recipe: type[RecipeConfig]) -> None:
    assert recipe() == load_config(PROJECT / "configs" / f"ppocrv3_det_{recipe().recipe}.yaml")


@pytest.mark.parametrize("path", SPACES, ids=lambda p: p.stem)
def test_a_shipped_range_goes_from_an_eighth_to_eight_times_of_the_recipes_own_value(path: Path) -> None:
    if path.stem == "demo":  # which has its reasons, in its comments
        return
    cfg = recipe_of(path)
    for key, distribution in space_in(path).distributions:
        if not isinstance(distribution, LogUniform):
            continue
        own = flatten(cfg)[key]
        narrow = key.startswith("optim.") and path.stem in ("cml_full", "dml_teacher", "student_finetune")
        if key.startswith("loss.") or not narrow:  # narrower ones say why
            assert distribution.low == pytest.approx(own / 8, rel=0.21), key
            assert distribution.high == pytest.approx(own * 8), key
        assert distribution.low < own < distribution.high


@pytest.mark.parametrize("path", SPACES, ids=lambda p: p.stem)
def test_a_search_space_fits_its_recipe(path: Path) -> None:
    assert space_in(path).varied


@pytest.mark.parametrize("path", SPACES, ids=lambda p: p.stem)
def test_a_shipped_space_is_shown_for_a_recipe_that_its_head_names_with_no_value_outside(path: Path) -> None:
    head = path.read_text().partition("\n\n")[0]
    named = re.findall(r"configs/ppocrv3_det_(\w+)\.yaml", head) or ["cml"]
    shown = read_to_show(path)
    assert shown.cfg.recipe in named
    assert shown.cfg == recipe_of(path) or path.stem in ("demo", "student_pareto")
    own = flatten(shown.cfg)
    outside = [key for key in shown.space.varied if not holds(dict(shown.space.distributions)[key], own[key])]
    assert outside == (["optim.lr"] if path.stem == "demo" else [])  # the demo says why


def test_a_space_around_other_values_is_shown_for_the_recipe_that_has_them(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    for recipe, decay in (("cml", 6e-6), ("student", 5e-5)):
        path.write_text(f"optim.weight_decay: {{loguniform: [{decay / 10}, {decay * 10}]}}\n")
        assert read_to_show(path).cfg.recipe == recipe
    path.write_text("optim.weight_decay: {choice: [0.0, 1.0e-5]}\ndata.augment.rotate_degrees: {uniform: [0, 20]}\n")
    assert read_to_show(path).cfg.recipe == "dml"


def test_the_digest_follows_what_decides_numbers_alone() -> None:
    cfg = load_config(CONFIGS[0])
    assert config_digest(override(cfg, ["ray.storage=elsewhere"])) == config_digest(cfg)
    assert config_digest(override(cfg, ["optim.lr=0.5"])) != config_digest(cfg)


def flatten_plain(node: object, prefix: str = "") -> set[str]:
    if not isinstance(node, dict):
        return {prefix.rstrip(".")}
    return {key for name, value in node.items() for key in flatten_plain(value, f"{prefix}{name}.")}


def test_there_is_a_recipe_file_for_each_recipe() -> None:
    recipes: list[RecipeConfig] = [load_config(path) for path in CONFIGS]
    assert {cfg.recipe for cfg in recipes} == {"dml", "cml", "student"}
