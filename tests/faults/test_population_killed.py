"""A population whose driver is killed: who was to take over does, and takeovers go on after the resume."""

from pathlib import Path

import pytest

from ocr_ray.donors import DONORS_FOLDER, INHERITED
from ocr_ray.reports import read_reports
from tests.killed import Sweep, Trials

EPOCHS, EVERY = 10, 2
SPACE = "optim.lr: {choice: [1.0e-2, 1.0e-7]}\n"
SETTINGS = (
    *("sweep.scheduler=pbt", "sweep.searcher=grid", f"sweep.perturb_epochs={EVERY}", "sweep.trials=2"),
    *("ray.cpus_per_worker=0.9", f"optim.epochs={EPOCHS}", "data.epoch_size=80"),
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_takeovers_go_on_after_kills(tiny: list[str], tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "sweep", tiny, SPACE, SETTINGS)
    kept = tmp_path / "sweep" / "runs" / "s" / "tune-kept"

    def when_one_is_to_take_over(trials: Trials, workers: int) -> bool:
        return any("PAUSED" in state.read_text() for state in kept.glob("experiment_state*.json"))

    def when_one_has_taken_over(trials: Trials, workers: int) -> bool:
        return any(trial["took_over"] for trial in trials)

    def inherited() -> list[list[str]]:
        folders = [tmp_path / "sweep" / "runs" / "s" / "train" / trial["trial_id"] for trial in sweep.trials()]
        return [[str(report.get(INHERITED, "")) for report in read_reports(folder)] for folder in folders]

    sweep.kill_when(when_one_is_to_take_over)
    assert not any(trial["took_over"] for trial in sweep.trials())
    sweep.kill_when(when_one_has_taken_over, "--resume")
    before = {name for names in inherited() for name in names}
    sweep.end("--resume")
    assert [(trial["epochs"], trial["end"]) for trial in sweep.trials()] == [(EPOCHS, "finished")] * 2
    assert {name for names in inherited() for name in names} - before  # others since the last kill
    for trial, last in zip(sweep.trials(), (names[-1] for names in inherited()), strict=True):
        assert trial["took_over"].endswith(f" at epoch {last.rsplit('-', 2)[1]}") if last else not trial["took_over"]
    told = [(name, status) for name, status, _ in sweep.runs()]
    assert told == [(name, "FINISHED") for name in ("s", "trial 1", "trial 2")]
    assert not (tmp_path / "sweep" / "runs" / "s" / DONORS_FOLDER).exists()
