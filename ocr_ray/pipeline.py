"""The main job: a teacher by DML, a sweep of CML trials under it, the best student's file, and what it reaches."""

import dataclasses
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ocr_ray.config import CMLConfig, DMLConfig
from ocr_ray.engine.evaluate import EvalConfig, Evaluation, evaluate
from ocr_ray.errors import RunError
from ocr_ray.files import whole_file
from ocr_ray.model_card import load_detector
from ocr_ray.progress import LiveFeed
from ocr_ray.recipes import read_val
from ocr_ray.session import connected
from ocr_ray.spaces import SearchSpace
from ocr_ray.train import TrainResult, train
from ocr_ray.tune import SweepResult, sweep


@dataclass(frozen=True)
class PipelineResult:
    """Both stages, and the file that is the point of it all, evaluated as it lies on disk."""

    teacher: TrainResult
    sweep: SweepResult
    student: Path
    evaluation: Evaluation


def run_pipeline(
    dml: DMLConfig, cml: CMLConfig, space: SearchSpace, student: Path, live: LiveFeed, name: str | None = None
) -> PipelineResult:
    """Trains the teacher pair, searches the students under the better of the two, writes the winner to `student`.

    Args: name is the stem of the run's and the sweep's folders in `ray.storage`, by default the time.
    Raises: RunError when the written file does not reach the hmean that its trial reported; else as `train`, `sweep`.
    """
    name = name or time.strftime("%Y%m%d-%H%M%S")
    with connected(dml.ray):
        teacher = train(dml, name=f"teacher-{name}", live=live)
        live.say(f"teacher: hmean {teacher.hmean:.4f}, {teacher.best}")
        cml = dataclasses.replace(cml, teacher=dataclasses.replace(cml.teacher, weights=str(teacher.best)))
        found = sweep(cml, space, name=f"sweep-{name}", live=live)
    with whole_file(student) as aside:
        shutil.copyfile(found.best, aside)
    return PipelineResult(teacher, found, student, evaluate_winner(student, found.hmean, cml))


def evaluate_winner(student: Path, hmean: float, cfg: CMLConfig) -> Evaluation:
    """Evaluates the extracted file, by what travels in it, on the pictures that the trials were evaluated on.

    Raises: RunError when its hmean is not the one that its trial reported, so that a wrong file is never handed out.
        Another number of threads or another memory layout moves the last bits of a probability, and may tip a box that
        lay on the edge: a hundredth is allowed for such.
    """
    detector, card, _ = load_detector(student)
    eval_cfg = EvalConfig(resize=card.resize, postprocess=card.postprocess)
    evaluation = evaluate(detector, read_val(cfg), card.normalize, eval_cfg, torch.device("cpu"))
    if abs(evaluation.score.hmean - hmean) > 0.01:
        raise RunError(f"{student}: reaches hmean {evaluation.score.hmean:.4f} on val, its trial reported {hmean:.4f}")
    return evaluation
