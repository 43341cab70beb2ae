"""One loop for the three recipes, in plain PyTorch: with or without DDP, on CPU or GPU, with no cluster in sight.

What leaves the loop leaves through two callables: `report` once an epoch, `on_step` for those who watch.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import signature
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from ocr_ray.data.batch import Targets
from ocr_ray.data.compact import Loaded
from ocr_ray.data.dataset import TrainSampler
from ocr_ray.data.labels import Sample
from ocr_ray.data.normalize import NormalizeConfig
from ocr_ray.data.on_device import on_device
from ocr_ray.engine.checkpoint import RunState
from ocr_ray.engine.evaluate import EvalConfig, Evaluation, ImageResult, evaluate
from ocr_ray.engine.graphs import record_graphs
from ocr_ray.engine.meter import EpochMeter, StepEvent
from ocr_ray.engine.optim import OptimConfig, build_adam, learning_rate
from ocr_ray.engine.teacher import prepared, unpacked
from ocr_ray.errors import ConfigError
from ocr_ray.losses.combined import LossParts, RecipeLoss, recipe_loss
from ocr_ray.models.distillation import CMLTriple, DMLPair, Single

KEPT = "keep.hmean.at_best"
"""Key of an epoch's metrics: hmean on the second validation set of the weights that did best on the first so far."""
NEW_PARTS_EPOCH = 1_000_000  # the steps for new parts draw pictures of their own, from epochs no run reaches


@dataclass(frozen=True)
class RunConfig:
    """What one training run does beside optimising."""

    seed: int = 1024
    """Of the initialisation and of every draw in the data."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16`: forward passes under autocast; losses, weights and the optimiser stay in fp32."""
    channels_last: bool = True
    """Memory layout of pictures and weights; the numbers differ in the last bits only."""
    cuda_graphs: bool = True
    """On a GPU a net's kernels of a step are recorded once and started together, so that none waits to be started.
    Changes no number. Runs of several workers go without."""
    new_parts_steps: int = 60
    """Steps in which only the parts that `may_be_new` left random are trained, everything else frozen and its BatchNorm
    in eval mode, before the run proper. Nothing new, no such steps."""
    evaluate_start: bool = True
    """Evaluate the teacher, and a student that starts from a file, on val before anything is trained."""
    threads: int | None = None
    """CPU threads of each worker; absent: its share of the cores."""

    def __post_init__(self) -> None:
        for key, value, least in (
            ("seed", self.seed, 0),
            ("new_parts_steps", self.new_parts_steps, 0),
            ("threads", 1 if self.threads is None else self.threads, 1),
        ):
            if value < least:
                raise ConfigError(f"run.{key}: expected at least {least}, found {value}")


@dataclass(frozen=True)
class Training:
    """All that a run works with. The loader yields the batches of `sampler`, which knows this worker's rank."""

    model: Single | DMLPair | CMLTriple
    loss: RecipeLoss
    optim: OptimConfig
    run: RunConfig
    eval: EvalConfig
    normalize: NormalizeConfig
    loader: DataLoader[Loaded]
    sampler: TrainSampler
    val: list[Sample]
    device: torch.device
    batch_shape: tuple[int, int, int, int]
    """Of the pictures of a whole batch, `(N, 3, H, W)`."""
    keep: list[Sample] = field(default_factory=list)
    """A second validation set, which is evaluated and decides nothing; perhaps none."""
    max_failed: float = 0.01
    new_parts: frozenset[str] = frozenset()
    """Names of the parameters that start from random values while others do not."""
    rank: int = 0
    world_size: int = 1
    teacher: Callable[[Loaded], Tensor] | None = None
    """Where the model does not hold its teacher: the stored answers to a batch, as `Batch.teacher` has them."""
    on_image: Callable[[str, ImageResult], None] = lambda student, result: None
    """Takes what each student, by name, finds on each picture of val that this rank evaluates."""


@dataclass(frozen=True)
class EpochReport:
    """What one epoch gave. `metrics` has dotted, flat names; `best` says whether this evaluation beat all before."""

    state: RunState
    metrics: dict[str, float]
    evaluations: dict[str, Evaluation]
    best: bool
    optimizer: torch.optim.Optimizer
    failures: tuple[str, ...] = ()
    """Pictures that could not be read in this epoch, on any rank, with the reason; others took their places."""


def update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    targets: Targets,
    loss: RecipeLoss,
    precision: Literal["fp32", "bf16"] = "fp32",
    clip_norm: float | None = None,
) -> LossParts:
    """One optimiser update at the learning rate that `optimizer` holds.

    Args: images are normalised, `(N, 3, H, W)`; model is a recipe's model, bare or in DDP; clip_norm bounds the
        L2 norm of the whole gradient.
    """
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        outputs = model(images)
    parts = recipe_loss(outputs, targets, loss)
    optimizer.zero_grad(set_to_none=True)
    parts.total.backward()  # type: ignore[no-untyped-call]
    if clip_norm is not None:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip_norm)
    optimizer.step()
    return parts


def fit(
    training: Training,
    optimizer: torch.optim.Optimizer,
    state: RunState,
    report: Callable[[EpochReport], None],
    on_step: Callable[[StepEvent], None] = lambda event: None,
) -> RunState:
    """Runs the epochs that are left after `state`. All ranks call it, and all ranks get each report.

    Raises: meter.LossNotFinite on the rank that met it; DataError when more than `max_failed` of the pictures fail.
    """
    if state.epoch == 0 and training.new_parts and training.run.new_parts_steps:
        _train_new_parts(training, on_step)
    if training.device.type == "cuda" and training.run.cuda_graphs and training.world_size == 1:
        record_graphs(training.model, training.batch_shape, training.run.precision, training.run.channels_last)
    model = _distributed(training, training.model)
    steps = len(training.sampler)
    for epoch in range(state.epoch, training.optim.epochs):
        started = time.monotonic()
        training.sampler.set_epoch(epoch)
        meter = EpochMeter(
            training.rank,
            training.world_size,
            training.device,
            training.max_failed,
            epoch + 1,
            steps,
            state.step,
            on_step,
        )
        training.model.train()
        for batch in meter.timed(_batches(training)):
            lr = learning_rate(state.step, steps, training.optim)
            for group in optimizer.param_groups:
                group["lr"] = lr
            images, targets = _on_device(training, batch)
            parts = update(
                model,
                optimizer,
                images,
                targets,
                training.loss,
                training.run.precision,
                training.optim.clip_norm,
            )
            meter.add(parts, batch)
            state = replace(state, step=state.step + 1)
        state = replace(state, epoch=epoch + 1)
        metrics = {"epoch": float(state.epoch), "step": float(state.step), "lr": lr, **meter.epoch_metrics()}
        evaluations: dict[str, Evaluation] = {}
        best = False
        if state.epoch % training.eval.every_epochs == 0 or state.epoch == training.optim.epochs:
            if training.rank == 0:
                on_step(StepEvent(state.epoch, steps, steps, metrics["loss.total"], evaluating=True))
            evaluations = evaluate_students(training)
            state, best = state.evaluated(max(e.score.hmean for e in evaluations.values()))
            metrics.update(score_metrics(evaluations))
            if training.keep:
                kept = evaluate_kept(training, evaluations)
                metrics.update({f"keep.{name}": getattr(kept.score, name) for name in ("hmean", "precision", "recall")})
                state = replace(state, best_keep=kept.score.hmean) if best else state
        if state.best_keep is not None:
            metrics[KEPT] = state.best_keep
        metrics["hmean"] = state.hmean
        metrics["hmean.best"] = max(state.best_hmean, 0.0)
        metrics["time.epoch_s"] = time.monotonic() - started
        report(EpochReport(state, metrics, evaluations, best, optimizer, meter.failures))
    return state


def evaluate_students(training: Training) -> dict[str, Evaluation]:
    """Every student on val, its pictures dealt over the ranks; rank 0's BatchNorm statistics stand for all."""
    if training.world_size > 1:
        for buffer in training.model.buffers():
            dist.broadcast(buffer, 0)
    return {
        name: evaluate(
            student,
            training.val,
            training.normalize,
            training.eval,
            training.device,
            training.rank,
            training.world_size,
            partial(training.on_image, name),
        )
        for name, student in training.model.students().items()
    }


def evaluate_kept(training: Training, evaluations: dict[str, Evaluation]) -> Evaluation:
    """On the second validation set, the student that did better on the first."""
    better = max(evaluations, key=lambda name: evaluations[name].score.hmean)
    student = training.model.students()[better]
    return evaluate(
        student,
        training.keep,
        training.normalize,
        training.eval,
        training.device,
        training.rank,
        training.world_size,
    )


def score_metrics(evaluations: dict[str, Evaluation]) -> dict[str, float]:
    """Precision and recall of the better student, and each student's hmean by name."""
    better = max(evaluations.values(), key=lambda e: e.score.hmean)
    metrics = {"precision": better.score.precision, "recall": better.score.recall}
    metrics.update({f"hmean.{name}": e.score.hmean for name, e in evaluations.items()})
    return metrics


def _train_new_parts(training: Training, on_step: Callable[[StepEvent], None]) -> None:
    """Random parts beside trained ones send large gradients into them; so the random ones catch up first, alone."""
    model = training.model
    trainable = {name: p.requires_grad for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in training.new_parts)
    model.train()
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and f"{name}.weight" not in training.new_parts:
            module.eval()  # batches of new data must not move the statistics that the trained parts rely on
    wrapped = _distributed(training, model)
    optimizer = build_adam([p for p in model.parameters() if p.requires_grad], training.optim)
    for group in optimizer.param_groups:
        group["lr"] = training.optim.lr
    total = training.run.new_parts_steps
    done, epoch = 0, NEW_PARTS_EPOCH
    while done < total:
        training.sampler.set_epoch(epoch)
        meter = EpochMeter(
            training.rank, training.world_size, training.device, training.max_failed, 0, total, done, on_step, done
        )
        for batch in meter.timed(_batches(training)):
            images, targets = _on_device(training, batch)
            parts = update(wrapped, optimizer, images, targets, training.loss, training.run.precision)
            meter.add(parts, batch)
            done += 1
            if done == total:
                break
        meter.epoch_metrics()  # for what it raises
        epoch += 1
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trainable[name])


def _distributed(training: Training, model: nn.Module) -> nn.Module:
    if training.world_size == 1:
        return model
    # BatchNorm statistics stay apart in training, as in the reference; evaluation and checkpoints take rank 0's.
    apart = "forward_sync_buffers" if "forward_sync_buffers" in signature(DistributedDataParallel).parameters else None
    return DistributedDataParallel(
        model,
        device_ids=[training.device.index] if training.device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **{apart or "broadcast_buffers": False},  # type: ignore[arg-type]  # the older name before torch 2.13
    )


def _batches(training: Training) -> Iterator[Loaded]:
    for batch in training.loader:
        yield batch if training.teacher is None else replace(batch, teacher=training.teacher(batch))


def _on_device(training: Training, loaded: Loaded) -> tuple[Tensor, Targets]:
    batch = on_device(loaded, training.device)
    images = prepared(batch.images, training.normalize, training.device, training.run.channels_last)
    targets = batch.targets
    if batch.teacher is not None:
        targets = replace(targets, teacher=unpacked(batch.teacher.to(training.device), *images.shape[2:]))
    return images, targets
