"""What a trial leaves for others: whole, still there when its run has dropped it, and gone when nobody needs it."""

import shutil
from pathlib import Path

import pytest

from ocr_ray.donors import (
    BEST,
    CHECKPOINT,
    DONORS_FOLDER,
    Donor,
    checkpoint_of,
    drop,
    drop_all,
    heir_of,
    inherit_best,
    mark_heir,
    pin,
    point,
    pointed,
)
from ocr_ray.errors import RunError


def run_with_checkpoint(folder: Path, text: str) -> tuple[Path, Path]:
    checkpoint, best = folder / "checkpoint_1", folder / "best"
    (checkpoint / "inside").mkdir(parents=True)
    best.mkdir()
    (checkpoint / "model.safetensors").write_text(text)
    (checkpoint / "inside" / "state.pt").write_text(text)
    (best / "student.safetensors").write_text(f"best {text}")
    (best / ".student.safetensors.x1").write_text("half of a file that is being written")
    return checkpoint, best


def test_a_donor_outlives_the_checkpoint_that_it_was_made_of(tmp_path: Path) -> None:
    checkpoint, best = run_with_checkpoint(tmp_path / "a", "one")
    donor = pin(tmp_path, "a_0-1", 4, checkpoint, best)
    shutil.rmtree(tmp_path / "a")
    assert (donor.trial_id, donor.epoch) == ("a_0-1", 4)
    assert donor == Donor.at(tmp_path / DONORS_FOLDER / donor.name)
    assert (checkpoint_of(Path(donor.path)) / "model.safetensors").read_text() == "one"
    assert (Path(donor.path) / CHECKPOINT / "inside" / "state.pt").read_text() == "one"
    assert [file.name for file in (Path(donor.path) / BEST).iterdir()] == ["student.safetensors"]
    assert (Path(donor.path) / BEST / "student.safetensors").read_text() == "best one"


def test_a_trial_that_comes_to_an_epoch_again_touches_no_donor_of_its_first_time(tmp_path: Path) -> None:
    checkpoint, best = run_with_checkpoint(tmp_path / "a", "one")
    first = pin(tmp_path, "a", 4, checkpoint, best)
    shutil.rmtree(tmp_path / "a")
    second = pin(tmp_path, "a", 4, *run_with_checkpoint(tmp_path / "a", "two"))
    texts = [(checkpoint_of(Path(donor.path)) / "model.safetensors").read_text() for donor in (first, second)]
    assert texts == ["one", "two"]


def test_who_takes_over_gets_the_best_weights_as_well(tmp_path: Path) -> None:
    checkpoint, best = run_with_checkpoint(tmp_path / "a", "one")
    run_with_checkpoint(tmp_path / "b", "two")
    donor = pin(tmp_path, "a", 4, checkpoint, best)
    inherit_best(Path(donor.path), tmp_path / "b")
    assert (tmp_path / "b" / BEST / "student.safetensors").read_text() == "best one"
    bare = pin(tmp_path, "c", 2, checkpoint, tmp_path / "none yet")
    inherit_best(Path(bare.path), tmp_path / "b")
    assert (tmp_path / "b" / BEST / "student.safetensors").read_text() == "best one"


def test_a_pointer_and_an_heirs_mark_come_back(tmp_path: Path) -> None:
    assert pointed(tmp_path) is None
    point(tmp_path, Donor("a", 4, "/x/a-4-1"))
    assert pointed(tmp_path) == Donor("a", 4, "/x/a-4-1")
    mark_heir(tmp_path, "")
    assert heir_of(tmp_path) == ""
    mark_heir(tmp_path, "a-4-1")
    assert heir_of(tmp_path) == "a-4-1"


def test_the_newest_that_is_known_those_after_it_and_those_that_are_needed_stay(tmp_path: Path) -> None:
    checkpoint, best = run_with_checkpoint(tmp_path / "a", "one")
    donors = {epoch: pin(tmp_path, "a", epoch, checkpoint, best) for epoch in (2, 4, 6, 8, 10)}
    others = [pin(tmp_path, "b", epoch, checkpoint, best) for epoch in (2, 4)]
    drop(tmp_path, {"a": 8}, {donors[4].path})
    left = {path.name for path in (tmp_path / DONORS_FOLDER).iterdir()}
    assert left == {donors[4].name, donors[8].name, donors[10].name, *(donor.name for donor in others)}
    with pytest.raises(RunError, match="the checkpoint to go on from is not there any more"):
        checkpoint_of(Path(donors[2].path))
    drop_all(tmp_path)
    drop_all(tmp_path)
    assert not (tmp_path / DONORS_FOLDER).exists()
