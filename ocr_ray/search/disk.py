"""Whether a sweep's checkpoints fit its disk, before anything starts."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from ocr_ray.engine.checkpoint import checkpoint_bytes
from ocr_ray.errors import RunError
from ocr_ray.models.distillation import CMLTriple, DMLPair, Single
from ocr_ray.train import CHECKPOINTS_KEPT

BEST_FILES = 2
"""The better student's file: in the trial's folder, and in MLflow."""
DONORS = 3
"""Of a trial in a population: the newest one, one that another goes on from, and one that is being written."""
PICTURES = 4 * 2**20
"""Of a trial's drawings, twice; they take less."""


@dataclass(frozen=True)
class DiskNeed:
    """Bytes that a sweep writes at most, the teacher's answers apart, which keep to their own limit."""

    trials: int
    """Still to be started."""
    each: int
    """What a trial leaves."""
    checkpoint: int
    at_once: int
    """Trials that may be writing a checkpoint more than they keep."""
    confirm: int = 0
    """Runs of a confirmation still to be started, after the trials."""

    @property
    def in_all(self) -> int:
        """For all of them together."""
        return self.of_trials + self.of_confirmation

    @property
    def of_trials(self) -> int:
        """For all trials together."""
        return self.trials * self.each + min(self.at_once, self.trials) * self.checkpoint

    @property
    def of_confirmation(self) -> int:
        """For its runs together, beside the trials'."""
        more = max(0, min(self.at_once, self.confirm) - min(self.at_once, self.trials))
        return self.confirm * self.each + more * self.checkpoint


def disk_need(
    model: Single | DMLPair | CMLTriple, trials: int, at_once: int, is_population: bool = False, confirm: int = 0
) -> DiskNeed:
    """For trials of such a model, and so many runs of a confirmation."""
    checkpoint = checkpoint_bytes(model)
    student = max(sum(p.nbytes for p in net.state_dict().values()) for net in model.students().values())
    each = CHECKPOINTS_KEPT * checkpoint + BEST_FILES * student + PICTURES
    if is_population:
        each += DONORS * (checkpoint + student)
    return DiskNeed(trials, each, checkpoint, at_once, confirm)


def must_have_room(folder: Path, need: DiskNeed) -> None:
    """Raises: RunError naming the folder, what is needed and what is free."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if need.in_all > free:
        also = f" and {need.confirm} runs of the confirmation" if need.confirm else ""
        fewer = " (sweep.confirm, sweep.seeds)" if need.confirm else ""
        raise RunError(
            f"{folder}: {need.trials} trials{also} may need {gib(need.in_all)} there "
            f"({CHECKPOINTS_KEPT} checkpoints of "
            f"{need.checkpoint / 2**20:.0f} MiB each, and the best student), {gib(free)} are free: make room, choose "
            f"another ray.storage, or fewer sweep.trials{fewer}"
        )


def gib(num_bytes: float) -> str:
    """For people."""
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes < 2**40 else f"{num_bytes / 2**40:.1f} TiB"
