"""A sweep whose driver is killed again and again ends with the table of one that nobody disturbed."""

from pathlib import Path

import pytest

from tests.killed import Sweep, Trials

SPACE = "optim.lr: {loguniform: [1.0e-4, 3.0e-2]}\nloss.db.beta: {uniform: [1, 20]}\n"
SETTINGS = (
    *("optim.epochs=6", "sweep.trials=3", "sweep.seed=3", "sweep.max_concurrent=1"),
    *("sweep.scheduler=asha", "sweep.grace_epochs=2", "sweep.reduction_factor=2"),
)


def before_the_first_report(trials: Trials, workers: int) -> bool:
    return workers > 0


def in_the_middle(trials: Trials, workers: int) -> bool:
    return trials[0]["epochs"] >= 2


def after_the_first_trial(trials: Trials, workers: int) -> bool:
    return trials[0]["end"] != "running"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_kills_change_no_line_of_the_table(tiny: list[str], tmp_path: Path) -> None:
    killed = Sweep(tmp_path / "killed", tiny, SPACE, SETTINGS)
    killed.kill_when(before_the_first_report)
    assert killed.trials()[0]["epochs"] == 0
    killed.kill_when(in_the_middle, "--resume")
    killed.kill_when(after_the_first_trial, "--resume")
    killed.end("--resume")
    undisturbed = Sweep(tmp_path / "undisturbed", tiny, SPACE, SETTINGS)
    undisturbed.end()
    assert killed.table() == undisturbed.table()
    ends = [trial["end"] for trial in killed.table()]
    assert ends[0] == "finished"
    assert "stopped early" in ends  # else the seed draws too little
    assert killed.runs() == undisturbed.runs()
    epochs = {f"trial {trial['number']}": list(range(1, trial["epochs"] + 1)) for trial in killed.table()}
    assert killed.runs() == [("s", "FINISHED", []), *((name, "FINISHED", steps) for name, steps in epochs.items())]
