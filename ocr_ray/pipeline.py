"""The main job: a teacher by DML, a sweep of CML students under it, the best student's files, and what they reach.

Each stage lies in a folder whose name follows from its inputs. So the same command again takes finished stages as they
are and goes on with one that was interrupted, and a changed input is another folder.
"""

import dataclasses
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from rich.table import Table

from ocr_ray.config import CMLConfig, RecipeConfig, load_config, with_paths_resolved
from ocr_ray.engine.evaluate import EvalConfig, Evaluation, evaluate
from ocr_ray.errors import RunError
from ocr_ray.export.write import Exported, export
from ocr_ray.files import whole_file, write_text
from ocr_ray.mlflow_store import store_uri
from ocr_ray.model_card import load_detector, read_card
from ocr_ray.progress import LiveFeed
from ocr_ray.recipes import read_train, read_val
from ocr_ray.registry.log import register_or_say
from ocr_ray.session import connected
from ocr_ray.spaces import SearchSpace
from ocr_ray.stages import Stages, stage_name
from ocr_ray.sweep_result import SweepResult, finished_sweep
from ocr_ray.train import CONFIG_FILE, TrainResult, finished_run, train
from ocr_ray.tune import sweep
from ocr_ray.typed import with_values
from ocr_ray.whence import origin_with_run


@dataclass(frozen=True)
class PipelineResult:
    """Both stages, and the file that is the point of it all, evaluated as it lies on disk."""

    teacher: TrainResult | SweepResult | None
    """None where the config named a teacher."""
    sweep: SweepResult
    student: Path
    """Its card lies beside it as JSON."""
    evaluation: Evaluation
    exported: Exported | None
    """As ONNX, read by its readers on val; None where the packages for it are not installed."""

    def table(self) -> Table:
        """A row for each stage, for the terminal."""
        table = Table(title="hmean on val, by stage", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.title_justify = "left"
        table.add_column("stage")
        table.add_column("hmean", justify="right")
        table.add_column("folder", overflow="fold")
        if self.teacher is not None:
            swept = " of a sweep" if isinstance(self.teacher, SweepResult) else ""
            table.add_row(f"teacher, the better of a DML pair{swept}", f"{self.teacher.hmean:.4f}", self.teacher.name)
        table.add_row("best student of the sweep, from its file", f"{self.evaluation.score.hmean:.4f}", self.sweep.name)
        return table


def run_pipeline(stages: Stages, student: Path, live: LiveFeed) -> PipelineResult:
    """Trains the teacher pair, searches the students under the better of the two, writes the winner to `student`.

    What is there of an earlier call with the same inputs is taken; what was interrupted goes on.

    Raises: RunError when the written file does not reach the hmean that its trial reported; else as `train`, `sweep`.
    """
    dml, cml = (with_paths_resolved(cfg, Path.cwd()) for cfg in (stages.dml, stages.cml))
    assert isinstance(cml, CMLConfig)
    for cfg in (dml, cml):  # a mistake in either is told before anything starts
        read_train(cfg), read_val(cfg)
    with connected(cml.ray):
        teacher = None
        if cml.teacher.weights is None:
            teacher = _teacher(dml, stages.teacher_space, live)
            live.say(f"teacher: hmean {teacher.hmean:.4f}, {teacher.best}")
            cml = dataclasses.replace(cml, teacher=dataclasses.replace(cml.teacher, weights=str(teacher.best)))
        found = _swept("students", cml, stages.space, live)
    with whole_file(student) as aside:
        shutil.copyfile(found.best, aside)
    write_text(student.with_suffix(".json"), found.best.with_suffix(".json").read_text())
    evaluation = evaluate_winner(student, found.hmean, cml)
    exported = _exported(student, found.best, cml, live)
    if exported is not None and exported.passed:
        register_or_say(exported.path, store_uri(cml.tracking.uri, Path(cml.ray.storage)), live.say)
    return PipelineResult(teacher, found, student, evaluation, exported)


def _teacher(cfg: RecipeConfig, space: SearchSpace | None, live: LiveFeed) -> TrainResult | SweepResult:
    if space is not None:
        return _swept("teachers", cfg, space, live)
    name = stage_name("teacher", cfg, None)
    folder = Path(cfg.ray.storage) / name
    done = finished_run(cfg, folder)
    if done is not None:
        live.say(f"{name}: is there already, trained with these inputs")
        return done
    return train(cfg, name, resume=_begun(folder), live=live)


def _swept(what: str, cfg: RecipeConfig, space: SearchSpace, live: LiveFeed) -> SweepResult:
    # As `sweep` itself sees the config, so that it takes its own folder for the same one.
    name = stage_name(what, with_values(cfg, space.fixed, space.source), space)
    folder = Path(cfg.ray.storage) / name
    if (folder / CONFIG_FILE).exists() and load_config(folder / CONFIG_FILE).data.keep != cfg.data.keep:
        live.say(f"{name}: its trials were begun with another data.keep, which is not looked at again")
    done = finished_sweep(folder, cfg)
    if done is not None:
        live.say(f"{name}: is there already, searched with these inputs")
        return done
    return sweep(cfg, space, name, resume=_begun(folder), live=live)


def _begun(folder: Path) -> bool:
    """Whether there is something to go on with. A folder without a config holds nothing yet, and makes way."""
    if (folder / CONFIG_FILE).exists():
        return True
    if folder.exists():
        shutil.rmtree(folder)
    return False


def _exported(student: Path, best: Path, cfg: CMLConfig, live: LiveFeed) -> Exported | None:
    """The student as ONNX beside its file, through the gate on val; its origin names the run of `best`."""
    if any(find_spec(package) is None for package in ("onnx", "onnxruntime")):
        live.say(
            f"no ONNX: pip install 'ocr-ray[gate]', then `ocr-ray export {student} {student.with_suffix('.onnx')}`"
        )
        return None
    live.stage("exporting, and reading the file by its readers")
    origin = origin_with_run(best, read_card(best).origin)
    return export(student, student.with_suffix(".onnx"), gate=read_val(cfg), origin=origin)


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
