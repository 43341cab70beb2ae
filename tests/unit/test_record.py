"""What is written down so that a run can be run again, and what it finds changed."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from ocr_ray.config import CMLConfig, RecipeConfig, load_config, override
from ocr_ray.errors import RunError, WeightsError
from ocr_ray.record import (
    CodeVersion,
    Recorder,
    RunRecord,
    code_version,
    deciding,
    differences,
    keep_record,
    package_versions,
)
from ocr_ray.rerun import changed_keys, compared


@pytest.fixture
def cfg(tiny: list[str], tmp_path: Path, small_set: Path) -> RecipeConfig:
    """A recipe on a copy of the small set, which a test may change."""
    shutil.copytree(small_set, tmp_path / "set")
    labels = [f"data.{part}=[{tmp_path}/set/{part}_label.txt]" for part in ("train", "val")]
    return override(load_config(Path(tiny[0])), labels)


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


def test_a_record_comes_back_as_it_was_written(cfg: RecipeConfig, tmp_path: Path) -> None:
    record = Recorder().of(cfg)
    assert RunRecord.from_json(record.to_json(), "x") == record
    assert {"data.train", "data.train.pictures", "data.val", "data.val.pictures"} == set(record.inputs)
    assert {"torch", "ray", "numpy", "opencv-python", "python"} <= set(record.packages)
    assert record.seed == cfg.run.seed
    tags = record.tags()
    assert tags["package.torch"] == record.packages["torch"]
    assert tags["digest.data.val"] == record.inputs["data.val"]
    with pytest.raises(RunError, match=r"x: is no record of a run"):
        RunRecord.from_json("{}", "x")


def test_sets_that_are_only_looked_at_decide_nothing(cfg: RecipeConfig) -> None:
    looking = override(cfg, [f"data.test=[{cfg.data.val[0]}]", f"data.keep=[{cfg.data.val[0]}]"])
    with_sets = Recorder().of(looking)
    assert {"data.test", "data.keep.pictures"} <= set(with_sets.inputs)
    assert deciding(with_sets).inputs == Recorder().of(cfg).inputs


def test_nothing_differs_until_something_does(cfg: RecipeConfig, tmp_path: Path) -> None:
    before = Recorder().of(cfg)
    assert differences(before, Recorder().of(cfg)) == []
    moved = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "set", moved)
    there = override(cfg, [f"data.{part}=[{moved}/{part}_label.txt]" for part in ("train", "val")])
    assert differences(before, Recorder().of(there)) == []  # what the data are, not where

    (moved / "train" / "00000.jpg").write_bytes(b"other")
    (line,) = differences(before, Recorder().of(there))
    assert line.startswith("data.train: picture files of other sizes than then (")
    labels = moved / "val_label.txt"
    labels.write_text("\n".join(labels.read_text().splitlines()[:-1]) + "\n")
    found = differences(before, Recorder().of(there))
    assert [line.split(" (")[0] for line in found] == [
        "data.train: picture files of other sizes than then",
        "data.val: other labels or paths than then",
        "data.val: picture files of other sizes than then",
    ]


def test_other_code_and_other_packages_are_a_line_each(cfg: RecipeConfig) -> None:
    before = Recorder().of(cfg)
    code = CodeVersion("0.0.1", "d" * 16, "c" * 40, dirty=True)
    packages = {**before.packages, "torch": "1.0", "extra": "2"}
    found = differences(dataclasses.replace(before, code=code, packages=packages), before)
    assert found == [
        f"code: 0.0.1 at cccccccccc, changed since (sources {'d' * 16}) then, {before.code} now",
        f"packages: torch 1.0 then, {before.packages['torch']} now; extra 2 then, absent now",
    ]


def test_a_resume_leaves_the_record_and_says_what_changed(cfg: RecipeConfig, tmp_path: Path) -> None:
    record = Recorder().of(cfg)
    assert keep_record(tmp_path / "run", record) == []
    other = dataclasses.replace(record, packages={**record.packages, "torch": "1.0"})
    (line,) = keep_record(tmp_path / "run", other)
    assert line == f"packages: torch {record.packages['torch']} at its start, 1.0 now"
    assert keep_record(tmp_path / "run", record) == []


def test_weights_are_known_by_their_bytes(cfg: RecipeConfig, tmp_path: Path, small_set: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"a")
    data = [f"data.{part}=[{small_set}/{part}_label.txt]" for part in ("train", "val")]
    cml = override(CMLConfig(), [*data, f"teacher.weights={tmp_path}/a.safetensors"])
    before = Recorder().of(cml)
    assert "student.weights" not in before.inputs
    (tmp_path / "a.safetensors").write_bytes(b"b")
    (line,) = differences(before, Recorder().of(cml))
    assert line.startswith("teacher.weights: another file than then (")
    with pytest.raises(WeightsError, match=r"gone.safetensors: no such file"):
        Recorder().of(override(cml, [f"student.weights={tmp_path}/gone.safetensors"]))


def test_the_commit_is_that_of_the_packages_own_checkout(tmp_path: Path) -> None:
    package = tmp_path / "checkout" / "ocr_ray"
    package.mkdir(parents=True)
    (package / "a.py").write_text("A = 1\n")
    bare = code_version(package)
    assert (bare.commit, bare.dirty) == ("", False)
    git(package.parent, "init")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-m", "a")
    clean = code_version(package)
    assert len(clean.commit) == 40
    assert not clean.dirty
    assert clean.digest == bare.digest
    (package / "a.py").write_text("A = 2\n")
    changed = code_version(package)
    assert changed.dirty
    assert (changed.commit, changed.digest == clean.digest) == (clean.commit, False)
    inside = package.parent / "venv" / "site-packages" / "ocr_ray"  # an environment in somebody's checkout
    shutil.copytree(package, inside)
    assert code_version(inside).commit == ""


def test_what_is_not_installed_has_no_version() -> None:
    assert set(package_versions(["torch", "no-such-package"])) == {"python", "torch"}


@pytest.mark.parametrize(
    ("before", "now", "equal", "verdict"),
    [
        ({1: 0.5, 2: 0.25}, {1: 0.5, 2: 0.25}, True, "equal to the first time's in 2 epochs, bit for bit"),
        ({1: 0.5}, {1: 0.5, 2: 0.1}, True, "in 1 epochs"),  # the first one was ended early
        ({1: 0.5, 2: 0.25}, {1: 0.5, 2: 0.25000000000000006}, False, "differs from epoch 2 on: 0.25 then, 0.25000000"),
        ({}, {1: 0.5}, False, "no epoch to compare"),
    ],
)
def test_losses_are_compared_bit_for_bit(
    before: dict[int, float], now: dict[int, float], equal: bool, verdict: str
) -> None:
    found = compared(before, now)
    assert found[0] == equal
    assert verdict in found[1]


def test_changed_keys_are_named_and_where_mlflow_writes_is_none() -> None:
    cfg = CMLConfig()
    other = override(cfg, ["optim.lr=0.5", "tracking.uri=http://x"])
    assert changed_keys(cfg, other) == [f"optim.lr: {cfg.optim.lr} then, 0.5 now"]
