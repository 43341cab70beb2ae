"""A pipeline's file: two recipes, what both share, and folders whose names follow from the inputs."""

import shutil
from pathlib import Path

import pytest

from ocr_ray.config import override
from ocr_ray.errors import ConfigError
from ocr_ray.recipes import read_train
from ocr_ray.spaces import space_from_plain
from ocr_ray.stages import Stages, load_stages, stage_name
from ocr_ray.typed import with_values

PROJECT = Path(__file__).resolve().parents[2]
SHIPPED = PROJECT / "configs" / "pipelines" / "ppocrv3_det.yaml"


@pytest.fixture
def labelled(small_set: Path) -> list[str]:
    return [f"data.train={small_set}/train_label.txt", f"data.val={small_set}/val_label.txt"]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    return path


def test_the_shipped_file_takes_values_for_both_recipes_and_for_one() -> None:
    stages = load_stages(SHIPPED, ["data.train=a.txt", "dml.optim.epochs=7", "cml.sweep.trials=5"])
    assert stages.dml.data.train == stages.cml.data.train == ("a.txt",)
    assert (stages.dml.optim.epochs, stages.cml.optim.epochs) == (7, 500)
    assert (stages.cml.sweep.trials, stages.dml.sweep.trials) == (5, 16)
    assert (stages.cml.sweep.confirm, stages.cml.sweep.seeds) == (2, 3)
    assert stages.teacher_space is None
    assert "loss.distill.weight" in stages.space.varied


def test_what_the_file_says_comes_before_the_command_line(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f"both: {{run: {{seed: 3}}, optim: {{epochs: 9}}}}\n"
        f"dml: {{recipe: {PROJECT}/configs/ppocrv3_det_dml.yaml, space: {PROJECT}/search_spaces/dml_teacher.yaml,"
        f" values: {{optim: {{epochs: 11}}}}}}\n"
        f"cml: {{recipe: {PROJECT}/configs/ppocrv3_det_cml.yaml, space: {PROJECT}/search_spaces/cml_lr.yaml}}\n",
    )
    stages = load_stages(path, ["run.seed=4"])
    assert (stages.dml.run.seed, stages.cml.run.seed) == (4, 4)
    assert (stages.dml.optim.epochs, stages.cml.optim.epochs) == (11, 9)
    assert stages.teacher_space is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dlm: {}", "dlm: is no part of a pipeline"),
        ("both: 3", "both: expected a mapping, found 3"),
        ("dml: {recipes: x}", "dml.recipes: expected one of recipe, space, values"),
        ("dml: {recipe: }", "dml.recipe: expected a file, found None"),
        (f"dml: {{recipe: {PROJECT}/configs/ppocrv3_det_cml.yaml}}", "is a recipe for cml, expected one for dml"),
        (
            f"both: {{data: {{trian: a.txt}}}}\ndml: {{recipe: {PROJECT}/configs/ppocrv3_det_dml.yaml}}",
            "Did you mean: 'train'?",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as e:
        load_stages(written(tmp_path, text))
    assert said in str(e.value)
    assert "pipeline.yaml" in str(e.value)
    assert "\n" not in str(e.value)


def test_a_folders_name_follows_from_what_decides_the_result(labelled: list[str], tmp_path: Path) -> None:
    stages = load_stages(SHIPPED, labelled)

    def name(of: Stages, *changes: str) -> str:
        return stage_name("students", override(of.cml, changes), of.space)

    assert name(stages, "ray.storage=elsewhere", "teacher.store_mib=5") == name(stages)
    assert name(stages, "sweep.confirm=5", "sweep.seeds=4") == name(stages)  # of trials that lie there
    other = [name(stages, change) for change in ("optim.lr=0.1", "sweep.trials=9", "run.seed=2")]
    assert len({name(stages), *other}) == 4
    wider = load_stages(SHIPPED, labelled)
    wider = Stages(wider.dml, wider.cml, type(wider.space)("x", wider.space.distributions[1:]))
    assert name(wider) != name(stages)
    spaces = [
        space_from_plain(
            {"loss.db.main": {"choice": ["dice", "bce"]}, "loss.db.ohem_ratio": {"uniform": [2, 9], **when}},
            stages.cml,
            "x",
        )
        for when in ({}, {"when": {"loss.db.main": "bce"}})
    ]
    assert len({stage_name("students", stages.cml, space) for space in spaces}) == 2
    weights = tmp_path / "teacher.safetensors"
    weights.write_bytes(b"one")
    before = name(stages, f"teacher.weights={weights}")
    weights.write_bytes(b"two")
    name_of_two = name(stages, f"teacher.weights={weights}")
    assert name_of_two != before
    moved_weights = weights.rename(tmp_path / "elsewhere.safetensors")
    assert name(stages, f"teacher.weights={moved_weights}") == name_of_two
    assert name(stages, f"student.weights={moved_weights}") != name_of_two
    labels = tmp_path / "more.txt"
    first = Path(labelled[0].split("=")[1])
    labels.write_text(first.read_text())
    moved = with_values(stages.cml, {"data.train": [str(labels)], "data.root": str(first.parent)}, "test")
    before = stage_name("students", moved, stages.space)
    labels.write_text("".join(first.read_text().splitlines(keepends=True)[:-1]))
    assert stage_name("students", moved, stages.space) != before
    copy = tmp_path / "pictures"
    shutil.copytree(first.parent, copy)
    copied = with_values(moved, {"data.root": str(copy)}, "test")
    same = stage_name("students", copied, stages.space)
    picture = next(iter(read_train(copied))).image
    picture.write_bytes(picture.read_bytes() + b"0")
    assert stage_name("students", copied, stages.space) != same
