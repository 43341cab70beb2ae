"""What a trial writes down beside its checkpoints."""

import json
from pathlib import Path

import ray

from ocr_ray.reports import REPORTS_FILE, read_reports
from ocr_ray.search.trial import plain_value, train_folder
from ocr_ray.train import reason


def test_the_last_word_on_an_epoch_counts_and_a_cut_line_does_not(tmp_path: Path) -> None:
    lines = [json.dumps({"epoch": epoch, "hmean": hmean}) for epoch, hmean in ((1, 0.1), (2, 0.2), (2, 0.25), (3, 0.3))]
    (tmp_path / REPORTS_FILE).write_text("\n".join([*lines, '{"epoch": 4, "hme']))
    assert [(r["epoch"], r["hmean"]) for r in read_reports(tmp_path)] == [(1, 0.1), (2, 0.25), (3, 0.3)]


def test_what_came_after_the_epoch_that_a_run_went_back_to_counts_no_more(tmp_path: Path) -> None:
    written = ((1, 0.1), (2, 0.1), (3, 0.1), (4, 0.1), (3, 0.7))  # it took over another's weights of epoch 2
    lines = [json.dumps({"epoch": epoch, "hmean": hmean}) for epoch, hmean in written]
    (tmp_path / REPORTS_FILE).write_text("\n".join(lines))
    assert [(r["epoch"], r["hmean"]) for r in read_reports(tmp_path)] == [(1, 0.1), (2, 0.1), (3, 0.7)]


def test_a_new_trial_has_none(tmp_path: Path) -> None:
    assert read_reports(tmp_path) == []


def test_a_trials_folder_follows_from_its_id_alone() -> None:
    assert train_folder("sweep", "ab12") == "sweep/train/ab12"


def test_drawn_values_lose_numpys_types() -> None:
    import numpy as np

    values = [plain_value(v) for v in (np.float64(0.5), np.int64(3), np.bool_(True), "dice", None, 2)]
    assert values == [0.5, 3, True, "dice", None, 2]
    assert [type(v) for v in values] == [float, int, bool, str, type(None), int]


def test_a_controllers_failure_is_told_by_its_cause() -> None:
    assert (
        reason(ray.train.ControllerError(ValueError("no room for 1 worker\nmore")))
        == "ValueError: no room for 1 worker"
    )
