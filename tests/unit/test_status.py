"""What a storage folder says of its sweeps and runs, and what can be asked of them."""

import dataclasses
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console, RenderableType

from ocr_ray.config import StudentConfig, to_yaml
from ocr_ray.confirm.verdict import Arm, judge
from ocr_ray.confirming import AskedRun, write_asked
from ocr_ray.driver import Driver
from ocr_ray.errors import RunError
from ocr_ray.reports import append_report
from ocr_ray.search import requests
from ocr_ray.search.trials import TrialBook
from ocr_ray.status import details, everything, find, overview, standing, stop
from ocr_ray.typed import with_values


def text(shown: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=400).print(shown)
    return out.getvalue()


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A sweep of four with three trials, one ended, and an older run of two epochs; no driver's note in either."""
    cfg = with_values(StudentConfig(), {"optim.epochs": 20, "sweep.trials": 4}, "test")
    for name in ("s", "r"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(to_yaml(cfg))
    book = TrialBook(tmp_path / "s", {})
    one, two = (book.start(i, n, {"optim.lr": lr}) for i, n, lr in (("a", 1, 0.01), ("b", 2, 0.02)))
    book.start("c", 3, {"optim.lr": 0.03})
    book.change(dataclasses.replace(one, epochs=20, hmean=0.5, best="x/student.safetensors", end="finished", seconds=9))
    book.change(dataclasses.replace(two, epochs=7, hmean=0.4, best="y/student.safetensors"))
    for epoch, hmean in ((1, 0.25), (2, 0.2)):
        append_report(tmp_path / "r", {"epoch": epoch, "hmean": hmean, "hmean.best": 0.25})
    for file in (tmp_path / "r").iterdir():
        os.utime(file, (1e9, 1e9))
    return tmp_path


def test_the_newest_comes_first_in_the_overview(storage: Path) -> None:
    lines = [line.split() for line in text(overview(storage)).splitlines()]
    assert [line[0] for line in lines] == ["name", "s", "r"]
    assert lines[1][1:7] == ["student", "1", "of", "4", "trials", "0.5000"]
    assert lines[2][1:7] == ["student", "2", "of", "20", "epochs", "0.2500"]


def test_a_sweep_under_way_is_shown_trial_by_trial(storage: Path) -> None:
    with Driver() as driver:
        driver.take(storage / "s", "sweep", "ocr-ray tune c.yaml s.yaml --name s --resume")
        requests.ask_to_stop(storage / "s", 2)
        lines = text(details(standing(storage / "s"))).splitlines()
    rows = [line.split() for line in lines]
    assert ["1", "0.01", "20", "0.5000", "*", "finished", "9"] in rows
    assert ["2", "0.02", "7", "0.4000", "running,", "to", "be", "stopped", "0"] in rows
    assert ["3", "0.03", "0", "starting", "0"] in rows
    assert "s: student, 1 of 4 trials ended; trial 2 at epoch 7 of 20, trial 3 at epoch 0 of 20" in lines
    assert "best so far: hmean 0.5000 in trial 1 (optim.lr=0.01)  x/student.safetensors" in lines
    assert lines[-1].startswith("runs since ")
    assert lines[-1].endswith(f"process {os.getpid()} on {os.uname().nodename}")


def test_after_a_kill_it_says_how_to_go_on(storage: Path) -> None:
    with Driver() as driver:
        driver.take(storage / "s", "sweep", "ocr-ray tune c.yaml s.yaml --name s --resume")
        note = json.loads((storage / "s" / "driver.json").read_text())
    (storage / "s" / "driver.json").write_text(json.dumps(note | {"created": 0}))  # as if it had been another process
    shown = text(details(standing(storage / "s")))
    assert f"its driver was killed (process {os.getpid()})\nto go on with it: ocr-ray tune c.yaml s.yaml" in shown
    assert "interrupted" in shown
    with pytest.raises(RunError, match="s: does not run, its driver was killed"):
        stop(standing(storage / "s"), None)


def test_a_single_run_is_shown_in_two_lines(storage: Path) -> None:
    assert text(details(standing(storage / "r"))).splitlines() == [
        "r: student, 2 of 20 epochs",
        f"best so far: hmean 0.2500  {storage}/r/best/student.safetensors",
    ]


def test_a_sweep_is_found_by_name_and_by_path_and_a_wrong_name_lists_those_there_are(storage: Path) -> None:
    assert find("s", storage) == storage / "s"
    assert find(str(storage / "s"), Path("elsewhere")) == storage / "s"
    with pytest.raises(RunError, match="no sweep and no run here; there are: s, r"):
        find("t", storage)
    with pytest.raises(RunError, match="no sweeps and no runs here; --storage"):
        overview(storage / "s")
    assert everything(storage / "nowhere") == []


def test_a_trial_that_is_asked_to_stop_is_asked_by_a_file(storage: Path) -> None:
    sweep = standing(storage / "s")
    assert stop(sweep, 2) == "s: trial 2 will be stopped when the sweep is resumed"
    assert requests.asked_to_stop(storage / "s", 2)
    assert requests.asked_to_stop(storage / "s") is None
    with pytest.raises(RunError, match="s: has no trial 9, expected one of 1, 2, 3"):
        stop(sweep, 9)
    with pytest.raises(RunError, match="s: trial 1 has ended already: finished"):
        stop(sweep, 1)
    with pytest.raises(RunError, match="r: is a single run, not a sweep"):
        stop(standing(storage / "r"), None)
    with Driver() as driver:
        driver.take(storage / "s", "sweep", "")
        assert stop(standing(storage / "s"), None).startswith("s: will stop as soon as")
    assert requests.asked_to_stop(storage / "s")


def test_a_confirmation_is_followed_and_then_names_the_answer(storage: Path) -> None:
    folder = storage / "s"
    runs = [AskedRun("trial-1-seed-7", "trial 1, seed 7", 3), AskedRun("default-seed-7", "it, seed 7", 3)]
    write_asked(folder, runs)
    for run, epochs in zip(runs, (3, 2), strict=True):
        (folder / "confirm" / run.folder).mkdir()
        append_report(folder / "confirm" / run.folder, {"epoch": epochs})
    shown = text(details(standing(folder)))
    assert "confirmation: 1 of 2 runs ended; it, seed 7 at epoch 2 of 3\n" in shown
    assert "best so far: hmean 0.5000 in trial 1" in shown
    assert "1 of 4 trials, 1 of 2 again" in text(overview(storage))

    words = np.full((1, 5, 3), 10)
    start, tuned = (folder / name / "student.safetensors" for name in ("start/best", "confirm/trial-1-seed-7/best"))
    for weights in (start, tuned):
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"weights")
    arms = [Arm("start", "untouched start", words, (start,)), Arm("candidate", "trial 1", words // 2, (tuned,))]
    found = judge([*arms, Arm("default", "default config", words // 2, (tuned,))], (7,))
    (folder / "confirmation.json").write_text(json.dumps(found.plain(folder, 0.1)))
    write_asked(folder, [runs[0]])
    lines = text(details(standing(folder))).splitlines()
    at = lines.index("best trial, trained once: hmean 0.5000 in trial 1 (optim.lr=0.01)")
    assert lines[at + 1] == f"confirmation: {found.sentence}"
    assert lines[at + 2] == f"answer: hmean 1.0000 (untouched start)  {start}"
    assert "x/student.safetensors" not in "".join(lines)
    assert " 1.0000 " in text(overview(storage))
    write_asked(folder, runs)  # a larger one
    lines = text(details(standing(folder))).splitlines()
    assert lines[at + 1].startswith("confirmation: 1 of 2 runs ended; ")
    assert lines[at + 2] == f"before that: {found.sentence}"
