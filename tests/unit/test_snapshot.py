"""Tune's record of a sweep comes back whole, whatever a kill has left of it."""

from pathlib import Path

from ocr_ray.search.snapshot import keep, put_back


def files(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}


def test_without_a_copy_tunes_own_record_counts(tmp_path: Path) -> None:
    assert not put_back(tmp_path)
    (tmp_path / "tune").mkdir()
    assert not put_back(tmp_path)
    (tmp_path / "tune" / "experiment_state-1.json").write_text("{}")
    assert put_back(tmp_path)
    assert files(tmp_path / "tune") == {"experiment_state-1.json": "{}"}


def test_the_last_whole_record_takes_the_place_of_one_that_was_cut(tmp_path: Path) -> None:
    tune = tmp_path / "tune"
    (tune / "a-trial").mkdir(parents=True)
    (tune / "experiment_state-1.json").write_text('{"trials": 1}')
    (tune / "searcher-state-1.pkl").write_text("one")
    keep(tmp_path)
    (tune / "searcher-state-1.pkl").write_text("two")
    keep(tmp_path)
    (tune / "experiment_state-1.json").write_text('{"tri')
    (tune / "experiment_state-2.json").write_text("")  # a newer driver's, of which Tune would take the newest
    assert put_back(tmp_path)
    assert files(tune) == {"experiment_state-1.json": '{"trials": 1}', "searcher-state-1.pkl": "two"}
    assert (tune / "a-trial").is_dir()
