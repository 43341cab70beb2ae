from pathlib import Path

import pytest

from ocr_ray.config import (
    CMLConfig,
    DMLConfig,
    StudentConfig,
    config_digest,
    load_config,
    override,
    recipe_from_plain,
    to_yaml,
    with_paths_resolved,
)
from ocr_ray.errors import ConfigError
from ocr_ray.models.detector import teacher_config


def test_the_dml_pair_has_the_teachers_architecture_by_default() -> None:
    assert DMLConfig().student.detector == teacher_config()
    assert CMLConfig().student.detector == StudentConfig().student.detector


def test_overrides_are_yaml_values() -> None:
    cfg = override(
        CMLConfig(),
        ["optim.lr=5e-4", "data.train=[a.txt, b.txt]", "data.val=c.txt", "loss.dml.weight=2", "optim.clip_norm=null"],
    )
    assert cfg.optim.lr == 5e-4
    assert cfg.data.train == ("a.txt", "b.txt")
    assert cfg.data.val == ("c.txt",)
    assert isinstance(cfg, CMLConfig)
    assert cfg.loss.dml.weight == 2.0


def test_paths_become_absolute_and_nothing_else_changes(tmp_path: Path) -> None:
    cfg = override(
        CMLConfig(),
        [
            "data.train=a.txt",
            "data.keep=k.txt",
            "data.test=x.txt",
            "teacher.weights=t.pdparams",
            "ray.storage=/elsewhere/runs",
        ],
    )
    resolved = with_paths_resolved(cfg, tmp_path)
    assert resolved.data.train == (str(tmp_path / "a.txt"),)
    assert (resolved.data.keep, resolved.data.test) == ((str(tmp_path / "k.txt"),), (str(tmp_path / "x.txt"),))
    assert isinstance(resolved, CMLConfig)
    assert resolved.teacher.weights == str(tmp_path / "t.pdparams")
    assert resolved.student.weights is None
    assert resolved.ray.storage == "/elsewhere/runs"
    assert resolved.loss == cfg.loss


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe: cml\nloss: {dml: {wieght: 1}}", "loss.dml.wieght: Key 'wieght' is not a key of 'DMLLossConfig'"),
        ("recipe: kd", "recipe: expected one of dml, cml, student, found 'kd'"),
        ("optim: {lr: 1}", "recipe: expected one of dml, cml, student, found None"),
        ("recipe: student\noptim: {lr: -1}", "optim.lr: expected a number of at least 0, found -1"),
        ("recipe: student\ndata: {batch_size: 0}", "data.batch_size: expected at least 1, found 0"),
        ("recipe: student\nrun: {seed: -1}", "run.seed: expected at least 0, found -1"),
        ("recipe: student\ndata: {train: [a, b], ratios: [0.5]}", "data.ratios: expected one for each of the 2 files"),
        ("recipe: student\ndata: {train: [a, b], mix: 1.5}", "data.mix: expected a number from 0 to 1, found 1.5"),
        (
            "recipe: student\ndata: {train: [a, b], ratios: [1, 1], mix: 1}",
            "data.mix: expected nothing beside data.rat",
        ),
        ("recipe: student\ndata: {train: a, mix: 1}", "data.mix: expected a second file in data.train"),
        ("recipe: student\nsweep: {seeds: 1}", "sweep.seeds: expected at least 2, found 1"),
        ("recipe: student\nsweep: {confirm: -1}", "sweep.confirm: expected at least 0, found -1"),
        (
            "recipe: student\nstudent: {detector: {neck: {kind: fpn}}}",
            "student.detector.neck.kind: 'fpn' is not one of",
        ),
        ("[1, 2]", "expected a mapping of keys to values, found list"),
        ("recipe: {", "not a YAML file"),
        ("", "recipe: expected one of"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_it(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim.lr=-1", "command line: optim.lr: expected a number of at least 0, found -1"),
        ("optim=1", "command line: optim: is a group, expected one of its keys, e.g. optim.lr"),
        ("data.train=???", "command line: data.train: a value is needed"),
        ("optim.learning_rate=1", "optim.learning_rate: .* Did you mean: 'optim.lr'"),
        ("wd=1", "Did you mean: 'optim.weight_decay'"),
        ("lr=0.1", "lr: Key 'lr' is not a key of 'CMLConfig'. Did you mean: 'optim.lr'"),
        ("epochs=5", "Did you mean: 'optim.epochs'"),
        ("batch_size=4", "Did you mean: 'data.batch_size' or 'eval.batch_size'"),
        ("run.batch_size=4", "Did you mean: 'data.batch_size' or 'eval.batch_size'"),
        ("eval.thresh=0.3", "Did you mean: 'eval.postprocess.thresh'"),
        ("postprocess.thresh=0.3", "Did you mean: 'eval.postprocess.thresh'"),
        ("loss.alpha=1", "Did you mean: 'loss.db.alpha' or 'loss.distill.alpha'"),
        ("student.neck.shortcut=1", "Did you mean: 'student.detector.neck.shortcut'"),
        ("val=a.txt", "Did you mean: 'data.val'"),
        ("optm.lr=1", "Did you mean: 'optim'"),
        ("run.weight_decya=1", "Did you mean: 'optim.weight_decay'"),
        ("run.amp=true", "run.amp: Key 'amp' is not a key of 'RunConfig'. Its keys: seed, precision, "),
        ("xyzzy.a.b=1", "Its keys: recipe, student, teacher, loss, "),
        ("optim.lr=${", r"optim\.lr=\$\{: not a YAML value: no viable alternative at input '\$\{'$"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_with_the_nearest_key(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        override(CMLConfig(), [text])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["optim: {lr: -1}", "data: {normalize: {std: [0, 1, 1]}}"])
def test_a_value_that_a_part_refuses_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"recipe: student\n{text}")
    with pytest.raises(ConfigError, match=r"/recipe\.yaml: (optim\.lr|normalize\.std): expected") as caught:
        load_config(path)
    assert str(caught.value).count("recipe.yaml") == 1


def test_what_a_run_writes_down_is_what_it_reads() -> None:
    cfg = override(DMLConfig(), ["student.detector.backbone={kind: resnet_vd, layers: 18}", "run.precision=bf16"])
    import yaml

    assert recipe_from_plain(yaml.safe_load(to_yaml(cfg)), "again") == cfg


def test_the_digest_is_that_of_what_decides_the_numbers() -> None:
    cfg = CMLConfig()
    same = [
        "teacher.shared=false",
        "teacher.store=elsewhere",
        "data.cache_mib=0",
        "ray.num_workers=2",
        "sweep.trials=3",
        "data.keep=old.txt",
        "data.test=test.txt",
    ]
    assert {config_digest(override(cfg, [text])) for text in same} == {config_digest(cfg)}
    other = [
        "teacher.batch_stats=true",
        "optim.lr=0.1",
        "data.batch_size=4",
        "loss.dml.weight=2",
        "run.seed=1",
        "data.mix=0",
    ]
    assert len({config_digest(override(cfg, [text])) for text in other} - {config_digest(cfg)}) == len(other)
