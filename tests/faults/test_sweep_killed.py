"""A sweep whose driver is killed again and again ends with the table of one that nobody disturbed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ocr_ray.status import standing
from tests.faults.killed import TOLD, Command, Trials, tracked_runs, trials_in, works

SPACE = "optim.lr: {loguniform: [1.0e-4, 3.0e-2]}\nloss.db.beta: {uniform: [1, 20]}\n"
EPOCHS = 6


def before_the_first_report(trials: Trials, workers: int) -> bool:
    return workers > 0


def in_the_middle(trials: Trials, workers: int) -> bool:
    return trials[0]["epochs"] >= 2


def after_the_first_trial(trials: Trials, workers: int) -> bool:
    return trials[0]["end"] != "running"


class Sweep:
    """`ocr-ray tune` of a search that one seed decides: one trial at a time."""

    def __init__(self, folder: Path, tiny: list[str]) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "space.yaml").write_text(SPACE)
        self.command = Command(
            folder,
            *("tune", tiny[0], "space.yaml", *tiny[1:], "--name", "s"),
            *("ray.storage=runs", "ray.address=local", f"optim.epochs={EPOCHS}", "sweep.trials=3", "sweep.seed=3"),
            *("sweep.max_concurrent=1", "sweep.scheduler=asha", "sweep.grace_epochs=2", "sweep.reduction_factor=2"),
        )

    def kill_when(self, moment: Callable[[Trials, int], bool], *options: str) -> None:
        """Starts it, and kills its driver then. No process of it works on."""
        self.command.kill_when(
            lambda family: bool(trials := self.trials()) and moment(trials, sum(map(works, family))), *options
        )
        assert standing(self.folder / "runs" / "s").state == "killed"

    def trials(self) -> Trials:
        return trials_in(self.folder / "runs" / "s")

    def table(self) -> Trials:
        return [{key: trial[key] for key in TOLD} for trial in self.trials()]

    def runs(self) -> list[tuple[str, str, list[int]]]:
        return tracked_runs(self.folder / "runs")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_kills_change_no_line_of_the_table(tiny: list[str], tmp_path: Path) -> None:
    killed = Sweep(tmp_path / "killed", tiny)
    killed.kill_when(before_the_first_report)
    assert killed.trials()[0]["epochs"] == 0
    killed.kill_when(in_the_middle, "--resume")
    killed.kill_when(after_the_first_trial, "--resume")
    killed.command.end("--resume")
    undisturbed = Sweep(tmp_path / "undisturbed", tiny)
    undisturbed.command.end()
    assert killed.table() == undisturbed.table()
    ends = [trial["end"] for trial in killed.table()]
    assert ends[0] == "finished"
    assert "stopped early" in ends  # else the seed draws too little
    assert killed.runs() == undisturbed.runs()
    epochs = {f"trial {trial['number']}": list(range(1, trial["epochs"] + 1)) for trial in killed.table()}
    assert killed.runs() == [("s", "FINISHED", []), *((name, "FINISHED", steps) for name, steps in epochs.items())]
