"""Sweeps' folders as they are met: recorded, half written, moved, of another version."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ocr_ray.confirm.verdict import Arm, judge
from ocr_ray.errors import RunError
from ocr_ray.report.contents import Scale
from ocr_ray.report.read import read_sweep, scale_from, sweep_folder
from ocr_ray.search.history import ranks_of
from ocr_ray.search.stopping import stopping
from ocr_ray.search.trials import TrialBook
from ocr_ray.settings import SweepConfig
from ocr_ray.typed import from_plain, read_yaml

RECORDED = Path(__file__).resolve().parents[1] / "data" / "sweep"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(RECORDED, tmp_path / "sweep"))


def change_book(folder: Path, change: Any) -> None:
    book = json.loads((folder / "trials.json").read_text())
    change(book)
    (folder / "trials.json").write_text(json.dumps(book))


def test_a_recorded_sweep_is_read_with_its_curves_its_winner_and_its_control() -> None:
    sweep = read_sweep(RECORDED)
    winner, control = sweep.winner, sweep.control
    assert winner is not None
    assert control is not None
    assert winner.hmean == max(t.hmean for t in sweep.trials if t.hmean is not None)
    assert control.number == 1
    assert {k: sweep.config[k] for k in control.values} == dict(control.values)
    for trial in sweep.trials:
        assert [e.number for e in trial.curve] == list(range(1, trial.epochs + 1))
        assert trial.curve[-1].best == trial.hmean
        assert max(e.hmean or 0 for e in trial.curve) == trial.hmean
    assert {t.end for t in sweep.trials} == {"finished", "stopped early"}
    assert sweep.rungs == (3, 6)


def test_the_axes_of_the_knobs_are_those_of_the_space() -> None:
    kinds = {knob.key: (knob.scale.kind, knob.space) for knob in read_sweep(RECORDED).knobs}
    assert kinds == {
        "optim.lr": ("log", "{loguniform: [0.002, 0.03]}"),
        "loss.db.beta": ("log", "{loguniform: [2.5, 40]}"),
        "loss.db.alpha": ("linear", "{uniform: [2, 8]}"),
        "loss.db.balance": ("choice", "{choice: [true, false]}"),
    }


@pytest.mark.parametrize(
    ("given", "rungs", "ranked"),
    [
        ("scheduler: asha", (3, 6), True),
        ("scheduler: auto", (3, 6), True),
        ("scheduler: median", (3, 6), True),
        ("scheduler: none", (3, 6), True),
        ("scheduler: auto\n  trials: 12", (3, 6), True),
        ("scheduler: pbt\n  searcher: random", (), False),
        ("scheduler: none\n  against: latency", (), False),
        ("scheduler: of a later version", (), False),
    ],
)
def test_the_page_knows_the_rungs_and_ranks_that_terminal_and_mlflow_are_told(
    folder: Path, given: str, rungs: tuple[int, ...], ranked: bool
) -> None:
    text = (folder / "config.yaml").read_text()
    for line in given.splitlines():  # the last of a key counts
        text = re.sub(rf"^  {line.split(':')[0].strip()}: .*\n", "", text, flags=re.M)
    (folder / "config.yaml").write_text(text.replace("sweep:\n", f"sweep:\n  {given}\n"))
    sweep, book = read_sweep(folder), TrialBook(folder, {})
    book.load()
    assert sweep.rungs == rungs
    assert bool(sweep.ranks.metrics()) == ranked
    if "later" not in given:
        cfg = from_plain(SweepConfig, read_yaml(folder / "config.yaml", "a config")["sweep"], "config.yaml")
        assert sweep.ranks == ranks_of(folder, book, stopping(cfg, 8, 1).rungs)


def test_the_first_rung_follows_from_the_epochs_where_no_grace_is_given(folder: Path) -> None:
    text = (folder / "config.yaml").read_text()
    for scheduler, rungs in (("auto", (3, 6)), ("asha", (1, 2, 4))):
        changed = text.replace("scheduler: asha", f"scheduler: {scheduler}")
        changed = changed.replace("grace_epochs: 3", "grace_epochs: null")
        (folder / "config.yaml").write_text(changed)
        assert read_sweep(folder).rungs == rungs


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("LogUniform(0.1, 10.0)", Scale("log", 0.1, 10.0)),
        ("LogUniform(0.1, 10.0, None)", Scale("log", 0.1, 10.0)),
        ("loguniform [0.1, 10]", Scale("log", 0.1, 10)),
        ("loguniform [1e-05, 10], points 5", Scale("log", 1e-5, 10)),
        ("Uniform(1, 2.5)", Scale("linear", 1, 2.5)),
        ("quniform [0, 1, 0.25]", Scale("steps", 0, 1, 0.25)),
        ("RandInt(1, 4)", Scale("whole", 1, 3)),
        ("Choice((0.01, 1e-09, True, 'dice'),)", Scale("choice", choices=(0.01, 1e-9, True, "dice"))),
        ("Choice((1,),)", Scale("choice", choices=(1,))),
        ("choice [0.1, True, dice]", Scale("choice", choices=(0.1, True, "dice"))),
        ("Fixed(3,)", None),
        ("when loss.db.main=dice: loguniform [0.1, 10]", None),
        ("LogUniform(a, b)", None),
        ("", None),
    ],
)
def test_the_words_of_the_books_for_a_distribution(written: str, expected: Scale | None) -> None:
    assert scale_from(written) == expected


def test_without_the_books_words_the_values_tell_the_axis(folder: Path) -> None:
    def forget(book: Any) -> None:
        book["identity"] = {}
        book["trials"][0]["values"]["optim.lr"] = 1e-4

    change_book(folder, forget)
    knobs = {knob.key: knob for knob in read_sweep(folder).knobs}
    assert knobs["optim.lr"].is_log
    assert knobs["loss.db.balance"].is_choice
    assert knobs["loss.db.alpha"].scale.kind == "linear"
    assert {knob.space for knob in knobs.values()} == {""}


def test_an_axis_is_widened_to_a_control_outside_the_space(folder: Path) -> None:
    change_book(folder, lambda book: book["trials"][0]["values"].update({"optim.lr": 0.5}))
    knobs = {knob.key: knob for knob in read_sweep(folder).knobs}
    assert (knobs["optim.lr"].scale.low, knobs["optim.lr"].scale.high) == (0.002, 0.5)


def test_the_costs_are_those_of_the_books_and_of_the_epochs(folder: Path) -> None:
    sweep = read_sweep(folder)
    stopped = next(t for t in sweep.trials if t.was_stopped)
    finished = next(t for t in sweep.trials if t.end == "finished")
    assert sweep.device_hours(stopped) == pytest.approx(stopped.seconds / 3600)
    assert stopped.epoch_s is not None
    assert sweep.saved_hours(stopped) == pytest.approx((8 - stopped.epochs) * stopped.epoch_s / 3600)
    assert sweep.saved_hours(finished) == 0
    config = (folder / "config.yaml").read_text().replace("num_workers: 1", "num_workers: 4")
    (folder / "config.yaml").write_text(config)
    assert read_sweep(folder).device_hours(stopped) == pytest.approx(4 * stopped.seconds / 3600)


def test_weights_are_found_beside_the_books_when_the_sweep_was_moved(folder: Path) -> None:
    trial = read_sweep(folder).trials[0]
    assert trial.weights is None
    best = folder / "train" / trial.trial_id / "best"
    best.mkdir()
    (best / "student.safetensors").write_bytes(b"")
    columns = {"index": [0, 1], "name": ["a", "b"], "matched": [1, 0], "ground_truth": [2, 1], "detected": [1, 3]}
    (best / "per_image.json").write_text(json.dumps({"epoch": 3, **columns}))
    found = read_sweep(folder).trials[0]
    assert found.weights == best / "student.safetensors"
    assert [(c.name, c.matched, c.ground_truth, c.detected) for c in found.per_image] == [
        ("a", 1, 2, 1),
        ("b", 0, 1, 3),
    ]
    (best / "per_image.json").write_text("{")
    assert read_sweep(folder).trials[0].per_image == ()


def test_a_sweep_that_runs_has_trials_without_hmean_or_curve(folder: Path) -> None:
    def run(book: Any) -> None:
        book["trials"] = book["trials"][:2]
        book["trials"][1].update(end="running", epochs=0, hmean=None, best="")

    change_book(folder, run)
    sweep = read_sweep(folder)
    shutil.rmtree(folder / "train" / sweep.trials[1].trial_id)
    sweep = read_sweep(folder)
    assert sweep.running == 1
    assert [t.number for t in sweep.compared] == [1]
    assert sweep.winner is sweep.control
    assert sweep.trials[1].curve == ()


def test_keys_of_other_versions_do_no_harm(folder: Path) -> None:
    def later(book: Any) -> None:
        book["more"] = 1
        for trial in book["trials"]:
            trial["priority"] = {"high": 1}
            del trial["seconds"]
        book["trials"][2]["hmean"] = float("nan")

    change_book(folder, later)
    (folder / "config.yaml").unlink()
    (folder / "start.json").unlink()
    sweep = read_sweep(folder)
    assert sweep.trials[2].hmean is None
    assert sweep.control is None
    assert sweep.epochs == 8
    assert sweep.rule is None
    assert sweep.rungs == ()


def test_a_confirmation_comes_from_its_sweep_as_it_was_found(folder: Path) -> None:
    """Three pictures of ten words each: the candidate finds six of them with each seed, the config's own values 4."""
    files = {}
    for name in ("start/best", "confirm/trial-seed-1/best", "confirm/trial-seed-2/best"):
        files[name] = folder / name / "student.safetensors"
        files[name].parent.mkdir(parents=True)
        files[name].write_bytes(b"weights")
    candidate = tuple(path for name, path in files.items() if name != "start/best")
    gone = tuple(folder / "confirm" / f"default-seed-{n}" / "student.safetensors" for n in (1, 2))

    def counts(*found: int) -> NDArray[np.int64]:
        return np.array([[[n, 10, 10]] * 3 for n in found])

    said = judge(
        [
            Arm("candidate", "trial 2", counts(6, 6), candidate, (0.25, 0.75)),
            Arm("default", "default config", counts(4, 4), gone),
            Arm("start", "untouched start", counts(3), (files["start/best"],), (0.125,)),
            Arm("candidate", "trial 3", np.zeros((0, 0, 3), np.int64), (), reason="seed 2: out of memory"),
        ],
        [1, 2],
    )
    (folder / "confirmation.json").write_text(json.dumps(said.plain(folder, 0.5)))
    moved = folder.rename(folder.with_name("moved"))
    found = read_sweep(moved).confirmation
    assert found is not None
    assert (found.winner, found.device_hours) == ("trial 2", 0.5)
    assert [(a.name, a.is_control, a.is_trained) for a in found.arms] == [
        ("untouched start", True, False),
        ("default config", True, True),
        ("trial 2", False, True),
    ]
    assert [a.hmeans for a in found.arms] == [(0.3,), (0.4, 0.4), (0.6, 0.6)]
    assert [a.keep for a in found.arms] == [0.125, None, 0.5]
    assert found.arms[0].weights == moved / "start" / "best" / "student.safetensors"
    assert found.arms[1].weights is None  # deleted since
    assert found.arms[2].weights == moved / "confirm" / "trial-seed-1" / "best" / "student.safetensors"
    assert [d.control for d in found.arms[2].differences] == ["default config", "untouched start"]
    assert found.arms[2].differences[0].is_gain
    assert found.answer is found.arms[2]
    assert found.default is found.arms[1]


def test_a_confirmation_is_read(folder: Path) -> None:
    over = [{"control": "default config", "difference": 0.02, "low": 0.01, "high": 0.03, "p": 0.01}]
    arms = [
        {"kind": "default", "name": "default config", "hmeans": [0.4, 0.42]},
        {"kind": "candidate", "name": "trial 7", "hmeans": [0.42, 0.44], "over": over},
        {"kind": "candidate", "name": "trial 3", "hmeans": [], "reason": "seed 2: out of memory"},
    ]
    (folder / "confirmation.json").write_text(json.dumps({"winner": "trial 7", "arms": arms}))
    found = read_sweep(folder).confirmation
    assert found is not None
    assert [arm.name for arm in found.arms] == ["default config", "trial 7"]
    assert found.answer is found.arms[1]
    assert found.arms[0].is_control
    assert found.arms[1].mean == pytest.approx(0.43)
    assert found.arms[1].spread == pytest.approx(0.0141421, rel=1e-4)
    assert found.arms[1].differences[0].is_gain
    (folder / "confirmation.json").write_text("[]")
    with pytest.raises(RunError, match=r"confirmation.json: expected the findings of a confirmation"):
        read_sweep(folder)


def test_what_is_no_sweep_is_told_in_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"nowhere: expected the folder of a sweep, or the name of one in runs/"):
        sweep_folder(Path("nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"empty: is no sweep, or none whose first trial has started"):
        sweep_folder(Path("empty"))
    shutil.copytree(folder, tmp_path / "runs" / "mine")
    assert sweep_folder(Path("mine")) == Path("runs/mine")
    assert sweep_folder(Path("mine"), tmp_path / "runs") == tmp_path / "runs" / "mine"
    with pytest.raises(RunError, match=r"mine: expected the folder of a sweep, or the name of one in elsewhere/"):
        sweep_folder(Path("mine"), Path("elsewhere"))
    assert sweep_folder(folder) == folder
    for text in ("{", "[]", '{"trials": 3}'):
        (folder / "trials.json").write_text(text)
        with pytest.raises(RunError, match=r"trials.json: "):
            read_sweep(folder)
