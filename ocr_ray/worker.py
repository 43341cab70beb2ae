"""What runs inside each DDP worker of Ray Train: plain data in, reports and checkpoints out."""

import contextlib
import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.util.queue import Full, Queue

from ocr_ray import errors
from ocr_ray.config import CMLConfig, RecipeConfig, config_digest, recipe_from_plain
from ocr_ray.data.labels import data_digest
from ocr_ray.donors import INHERITED, checkpoint_of, heir_of, inherit_best, mark_heir
from ocr_ray.engine.best import BEST_FOLDER, keep_best
from ocr_ray.engine.checkpoint import RunState, load_checkpoint, save_checkpoint
from ocr_ray.engine.loop import EpochReport, Training, fit
from ocr_ray.engine.meter import LossNotFinite, StepEvent
from ocr_ray.engine.optim import build_adam
from ocr_ray.engine.per_image import PER_IMAGE_FILE, write_per_image
from ocr_ray.errors import UserError
from ocr_ray.files import write_text
from ocr_ray.model_card import ModelCard, Origin
from ocr_ray.progress import Phase, ProgressEvent
from ocr_ray.recipes import build_model, build_training
from ocr_ray.session import threads_of_environment
from ocr_ray.sketches import Sketches
from ocr_ray.teaching.sharing import Teaching, shared_teacher
from ocr_ray.tracking import DEVICE, IMAGES
from ocr_ray.typed import flatten, to_plain

STOPPED = "stopped.json"
"""In a run's folder: the mistake that ended it. A restarted worker that finds it does not try again."""

FAILED_PICTURES = "data.failed_pictures"
"""Key of a report: the pictures that could not be read and were not named before, each with the reason."""
UNREADABLE_VAL = "val.unreadable"
"""Key of a report: the pictures of val that were left out of this epoch's evaluation, each with the reason."""
DIAGNOSIS = "val.diagnosis"
"""Key of a report: why the better student's hmean is 0, or nothing."""


@dataclass(frozen=True)
class WorkerArguments:
    """What a worker is told."""

    config: dict[str, Any]
    folder: str
    """Of the run, absolute, on storage that all machines see."""
    name: str
    """Of the run, as people see it."""
    stage: str = ""
    feed: Queue | None = None
    """Takes rank 0's `ProgressEvent`s."""
    teaching: Teaching | None = None
    """Where a CML trial reads its teacher's answers; None: it has the teacher itself."""
    donor: str = ""
    """Folder of another trial's `Donor`, from which the run goes on unless it has already."""


def arguments_for(
    cfg: RecipeConfig,
    folder: Path,
    name: str,
    stage: str,
    feed: Queue | None,
    teaching: Teaching | None,
    donor: str = "",
) -> dict[str, Any]:
    """The `train_loop_config` of a run."""
    return vars(WorkerArguments(to_plain(cfg), str(folder), name, stage, feed, teaching, donor))


def train_worker(plain: dict[str, Any]) -> None:
    """One DDP worker. A mistake of the user is written down for the driver, and not tried again."""
    arguments = WorkerArguments(**plain)
    context = ray.train.get_context()
    record = Path(arguments.folder) / STOPPED
    if record.exists():
        return
    alone = context.get_world_size() == 1
    try:
        _train(arguments, context.get_world_rank(), context.get_world_size())
    except LossNotFinite as e:
        parts = ", ".join(f"{name} {value:g}" for name, value in e.parts.items())
        message = f"loss is not finite at {e.where} ({parts}); the {len(e.paths)} pictures are listed in {record}"
        details = {"at": e.where, "parts": {k: repr(v) for k, v in e.parts.items()}, "images": e.paths}
        write_text(record, json.dumps({"kind": "RunError", "message": message, **details}, indent=2))
        if not alone:
            raise  # the others wait in a collective; the restart brings all of them to the record
    except UserError as e:
        write_text(record, json.dumps({"kind": type(e).__name__, "message": str(e)}, indent=2))
        if not alone:
            raise


def raise_if_stopped(folder: Path) -> None:
    """Raises the mistake that a worker of the run in `folder` wrote down, if there is one."""
    record = folder / STOPPED
    if record.exists():
        stopped = json.loads(record.read_text())
        raise getattr(errors, stopped["kind"])(stopped["message"])


def _train(arguments: WorkerArguments, rank: int, world_size: int) -> None:
    cfg = recipe_from_plain(arguments.config, "config")
    folder = Path(arguments.folder)
    # A process that was started ahead had imported PyTorch before it had a share of the cores.
    threads = cfg.run.threads or threads_of_environment()
    if threads:
        torch.set_num_threads(threads)
    teaching = arguments.teaching
    built = build_model(cfg, with_teacher=teaching is None)
    training = build_training(cfg, built, ray.train.torch.get_device(), rank, world_size)
    if teaching is not None:
        assert isinstance(cfg, CMLConfig)
        shared = shared_teacher(teaching, cfg, arguments.name, training.sampler.num_samples, world_size)
        training = dataclasses.replace(training, teacher=shared)
    sketches = None
    if rank == 0 and cfg.tracking.pictures:
        sketches = Sketches(folder, training.val[::world_size], cfg.optim.epochs, cfg.tracking.pictures)
        training = dataclasses.replace(training, on_image=sketches.see)
    optimizer = build_adam([p for p in training.model.parameters() if p.requires_grad], cfg.optim)
    state, inherited = _begin(arguments, cfg, training, optimizer, rank)
    used = json.dumps(flatten(cfg))  # read back from what this worker built with, for whoever writes it down
    metadata = checkpoint_metadata(cfg)
    named: set[str] = set()
    signs = _Signs(arguments, cfg.optim.epochs, len(training.sampler), rank)

    def report(epoch: EpochReport) -> None:
        metrics: dict[str, Any] = {**epoch.metrics, "epoch": epoch.state.epoch, "step": epoch.state.step}
        if rank != 0:
            ray.train.report(metrics)
            return
        if epoch.best:
            which, detector = better_student(training, epoch)
            about = {"epoch": epoch.state.epoch, "which": which}
            write_per_image(folder / BEST_FOLDER / PER_IMAGE_FILE, epoch.evaluations[which].per_image, about)
            keep_best(folder, detector, card_of(cfg, training, epoch, which, arguments.name), to_plain(cfg))
        if sketches is not None and epoch.evaluations:
            drawn = sketches.draw(better_student(training, epoch)[0], epoch.state.epoch, epoch.best)
            metrics[IMAGES] = [str(path) for path in drawn]
        metrics["config"] = used
        if inherited:
            metrics[INHERITED] = inherited
        metrics[DEVICE] = device_name(training.device)
        metrics[FAILED_PICTURES] = [failure for failure in dict.fromkeys(epoch.failures) if failure not in named]
        named.update(epoch.failures)
        better = max(epoch.evaluations.values(), key=lambda e: e.score.hmean, default=None)
        metrics[DIAGNOSIS] = (better.diagnosis or "") if better is not None else ""
        metrics[UNREADABLE_VAL] = list(better.unreadable) if better is not None else []
        metrics["best_path"] = str(folder / "best" / "student.safetensors")
        hmean = epoch.state.hmean if epoch.state.best_epoch else None  # none yet is not 0
        signs.send("training", epoch.state.epoch, 0, epoch.metrics["loss.total"], hmean)
        with tempfile.TemporaryDirectory(prefix="ocr_ray_checkpoint_") as at:
            save_checkpoint(Path(at), training.model, epoch.optimizer, epoch.state, metadata)
            mark_heir(Path(at), inherited)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(at))

    fit(training, optimizer, state, report, signs.on_step)


def _begin(
    arguments: WorkerArguments, cfg: RecipeConfig, training: Training, optimizer: torch.optim.Optimizer, rank: int
) -> tuple[RunState, str]:
    """Puts back the run's last checkpoint, or that of a donor from which it has not gone on yet.

    Returns: where the run stands, and the name of the donor from which it went on last; empty where there was none.
    """
    state, inherited = RunState(), ""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as at:
            state, inherited = load_checkpoint(Path(at), training.model, optimizer), heir_of(Path(at))
    donor = Path(arguments.donor)
    if not arguments.donor or donor.name == inherited:
        return state, inherited
    taken = load_checkpoint(checkpoint_of(donor), training.model, optimizer)
    for group in optimizer.param_groups:
        group["weight_decay"] = cfg.optim.weight_decay  # the donor's came with its state; the rate is set at each step
    if state.best_hmean > taken.best_hmean:  # what the run had found by itself stays its best
        best = {key: getattr(state, key) for key in ("best_hmean", "best_epoch", "best_keep")}
        taken = dataclasses.replace(taken, **best)
    elif rank == 0:
        inherit_best(donor, Path(arguments.folder))
    return taken, donor.name


def device_name(device: torch.device) -> str:
    """What computes, as far as it decides an answer's last bits: the card, or the processor's kind and the threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def better_student(training: Training, epoch: EpochReport) -> tuple[str, Any]:
    """Name and net of the student with the higher hmean in this epoch's evaluation."""
    which = max(epoch.evaluations, key=lambda name: epoch.evaluations[name].score.hmean)
    return which, training.model.students()[which]


def card_of(cfg: RecipeConfig, training: Training, epoch: EpochReport, which: str, run: str) -> ModelCard:
    """What travels with the weights of a run's better student."""
    return ModelCard(
        detector=cfg.student.detector,
        normalize=cfg.data.normalize,
        resize=cfg.eval.resize,
        postprocess=cfg.eval.postprocess,
        origin=Origin(
            hmean=epoch.evaluations[which].score.hmean,
            which=which,
            recipe=cfg.recipe,
            run=run,
            epoch=epoch.state.epoch,
            config_digest=config_digest(cfg),
            data_digest=data_digest(training.val),
        ),
    )


def checkpoint_metadata(cfg: RecipeConfig) -> dict[str, str]:
    """What a checkpoint says of its nets: `Student.detector` and so on, and how all of them are to be used."""
    card = ModelCard(cfg.student.detector, cfg.data.normalize, cfg.eval.resize, cfg.eval.postprocess).to_metadata()
    detector, _ = card.pop("detector"), card.pop("origin")
    return {**card, "Student.detector": detector, "Student2.detector": detector}


class _Signs:
    """Rank 0's signs of life. A full queue, or one whose driver is gone, costs a line on a screen, not the run."""

    def __init__(self, arguments: WorkerArguments, epochs: int, steps: int, rank: int) -> None:
        self._arguments, self._epochs, self._steps = arguments, epochs, steps
        self._feed = arguments.feed if rank == 0 else None

    def on_step(self, event: StepEvent) -> None:
        if event.epoch == 0:
            self.send("new parts", 0, event.step, event.loss, steps=event.steps)
        elif event.evaluating:
            self.send("evaluating", event.epoch, 0, event.loss)
        else:
            self.send("training", event.epoch - 1, event.step, event.loss)

    def send(
        self, phase: Phase, epoch: int, step: int, loss: float, hmean: float | None = None, steps: int | None = None
    ) -> None:
        if self._feed is None:
            return
        a = self._arguments
        event = ProgressEvent(a.name, phase, a.stage, epoch, self._epochs, step, steps or self._steps, loss, hmean)
        with contextlib.suppress(Full, ray.exceptions.RayError):
            self._feed.put_nowait(event)
