"""Who works on a folder, as others see it: while it does, after it, and after a kill."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ocr_ray.driver import DRIVER_FILE, SILENT_S, Driver, must_be_alone, read_note, state_of
from ocr_ray.errors import RunError


def state(folder: Path) -> str:
    note = read_note(folder)
    assert note is not None
    return state_of(folder, note)


def test_a_folder_that_nobody_took_has_no_note_and_is_free(tmp_path: Path) -> None:
    assert read_note(tmp_path) is None
    assert read_note(tmp_path / "not there") is None
    must_be_alone(tmp_path)


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (None, ("finished", "")),
        (KeyboardInterrupt(), ("stopped", "")),
        (RunError("no trial came\nthrough"), ("failed", "no trial came")),
    ],
)
def test_a_driver_notes_how_it_went(error: BaseException | None, left: tuple[str, str], tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt, RunError), Driver() as driver:
        driver.take(tmp_path, "sweep", "ocr-ray tune ... --resume")
        assert state(tmp_path) == "runs"
        must_be_alone(tmp_path)  # it is this very process
        if error is not None:
            raise error
    note = read_note(tmp_path)
    assert note is not None
    assert (note.ended, note.reason) == left
    assert note.resume == "ocr-ray tune ... --resume"


def test_a_driver_that_took_nothing_leaves_nothing(tmp_path: Path) -> None:
    with Driver():
        pass
    assert list(tmp_path.iterdir()) == []


def test_another_process_is_seen_while_it_lives_and_after_it_was_killed(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from ocr_ray.driver import Driver\n"
        "with Driver() as driver:\n"
        "    driver.take(pathlib.Path(sys.argv[1]), 'run', ''); print('up', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        assert state(tmp_path) == "runs"
        with pytest.raises(RunError, match=f"is at work already: process {other.pid} on "):
            must_be_alone(tmp_path)
        other.kill()
        deadline = time.monotonic() + 10
        while state(tmp_path) == "runs" and time.monotonic() < deadline:
            time.sleep(0.01)  # and nobody has waited for it yet: it is a zombie
    assert state(tmp_path) == "killed"
    must_be_alone(tmp_path)


def test_a_number_that_another_process_has_got_since_is_not_the_driver(tmp_path: Path) -> None:
    with Driver() as driver:
        driver.take(tmp_path, "run", "")
        note = json.loads((tmp_path / DRIVER_FILE).read_text())
        (tmp_path / DRIVER_FILE).write_text(json.dumps(note | {"created": note["created"] - 60}))
        assert state(tmp_path) == "killed"


def test_of_a_driver_elsewhere_its_signs_of_life_are_all_that_is_known(tmp_path: Path) -> None:
    with Driver() as driver:
        driver.take(tmp_path, "run", "")
        note = json.loads((tmp_path / DRIVER_FILE).read_text())
        (tmp_path / DRIVER_FILE).write_text(json.dumps(note | {"host": "elsewhere"}))
        assert state(tmp_path) == "runs"
        long_ago = time.time() - 2 * SILENT_S
        os.utime(tmp_path / DRIVER_FILE, (long_ago, long_ago))
        assert state(tmp_path) == "killed"
        must_be_alone(tmp_path)
