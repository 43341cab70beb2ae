"""What a run or a sweep starts from: hmean of the teacher and of the student's given weights, before any training."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ocr_ray.config import CMLConfig, RecipeConfig, recipe_from_plain
from ocr_ray.engine.evaluate import Evaluation, evaluate
from ocr_ray.engine.per_image import write_per_image
from ocr_ray.files import write_text
from ocr_ray.models.distillation import CMLTriple
from ocr_ray.progress import LiveFeed
from ocr_ray.recipes import build_model, read_keep, read_val
from ocr_ray.session import on_a_gpu
from ocr_ray.typed import to_plain

START_FILE = "start.json"
START_COUNTS = "start_per_image.json"
STUDENT = "hmean.start"
KEPT_START = "keep.hmean.start"


@dataclass(frozen=True)
class StartScores:
    """On val, and of the student on `data.keep`. None for weights that are random, for a recipe without a teacher, and
    where it was not asked for."""

    student: Evaluation | None = None
    teacher: Evaluation | None = None
    keep: Evaluation | None = None

    def metrics(self) -> dict[str, float]:
        """Names under which a run records them, at epoch 0."""
        named = {STUDENT: self.student, "hmean.Teacher": self.teacher, KEPT_START: self.keep}
        return {name: evaluation.score.hmean for name, evaluation in named.items() if evaluation is not None}


def start_figures(folder: Path) -> dict[str, float]:
    """What `start_metrics` wrote down for the run or sweep in `folder`; nothing where it has not."""
    record = folder / START_FILE
    return dict(json.loads(record.read_text())) if record.exists() else {}


def start_metrics(cfg: RecipeConfig, folder: Path, live: LiveFeed) -> dict[str, float]:
    """`score_start`, once for the run or sweep in `folder`: a resume reads what was found."""
    record = folder / START_FILE
    if not record.exists():
        scores = score_start(cfg, live)
        if scores.student is not None:
            write_per_image(folder / START_COUNTS, scores.student.per_image, {"epoch": 0})
        write_text(record, json.dumps(scores.metrics()))
    return start_figures(folder)


def say_if_below_start(hmean: float, start: Mapping[str, float], live: LiveFeed) -> None:
    """Warns when training has ended below what it started from, so that nobody takes its file for a gain."""
    if hmean < start.get(STUDENT, 0.0):
        live.say(
            f"warning: the best hmean reached, {hmean:.4f}, is below that of the weights it started from, "
            f"{start[STUDENT]:.4f}: keep those, or try a lower optim.lr"
        )


def score_start(cfg: RecipeConfig, live: LiveFeed) -> StartScores:
    """Evaluates what is there and says it; a teacher that is worse than the student gets a warning.

    On a GPU of the connected cluster where it has one, else in this process.
    """
    has_teacher = isinstance(cfg, CMLConfig)
    if not cfg.run.evaluate_start or not (has_teacher or cfg.student.weights):
        return StartScores()
    what = "the teacher" if has_teacher else "the given weights"
    live.say(f"start: evaluating {what} on val before anything is trained (run.evaluate_start=false leaves it out)")
    scores = on_a_gpu(_score, to_plain(cfg))
    student, teacher = scores.student, scores.teacher
    for name, evaluation in (("teacher", teacher), ("student", student), ("student on data.keep", scores.keep)):
        if evaluation is not None:
            live.say(f"start: {name}: {evaluation.one_line()}")
    if student is None:
        live.say("start: student: random weights, not evaluated")
    if student is not None and teacher is not None and teacher.score.hmean < student.score.hmean:
        live.say(
            f"warning: the teacher (hmean {teacher.score.hmean:.4f}) is worse on val than the student's start "
            f"({student.score.hmean:.4f}): distillation will pull the student down"
        )
    return scores


def _score(plain: dict[str, Any]) -> StartScores:
    cfg = recipe_from_plain(plain, "config")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    built, val = build_model(cfg), read_val(cfg)
    model = built.model.to(device)
    student, teacher, kept, keep = None, None, None, read_keep(cfg)
    if cfg.student.weights:
        student = evaluate(model.Student, val, cfg.data.normalize, cfg.eval, device)
        kept = evaluate(model.Student, keep, cfg.data.normalize, cfg.eval, device) if keep else None
    if isinstance(model, CMLTriple) and built.teacher_normalize is not None:
        teacher = evaluate(model.Teacher, val, built.teacher_normalize, cfg.eval, device)
    return StartScores(student, teacher, kept)
