"""Nets whose kernels a GPU is told of once.

To start a light net's many small kernels one by one takes part of each step: on an H100 (`benchmarks/results`) a step
of a student is 1.15 times as fast where they are started together, one of CML with its teacher 1.34 times.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from ocr_ray.models.db_head import Maps
from ocr_ray.models.detector import Detector
from ocr_ray.models.distillation import CMLTriple, DMLPair, Single

Precision = Literal["fp32", "bf16"]


def record_graphs(
    model: Single | DMLPair | CMLTriple, shape: tuple[int, int, int, int], precision: Precision, channels_last: bool
) -> None:
    """From now on each student in training mode, and a teacher in eval mode, replays a CUDA graph of its kernels.

    They are the same kernels in the same order, so that numbers do not change. Pictures of another shape, and students
    in eval mode, go through the nets as before. To be called once, on a model that lies on its GPU, and not under DDP,
    where it was not tried.
    Source: `torch.cuda.make_graphed_callables`.

    Args: shape is that of a batch of pictures, `(N, 3, H, W)`.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    device = next(model.parameters()).device
    images = torch.zeros(shape, device=device).contiguous(memory_format=layout)
    for student in model.students().values():
        _record_training(student, images, precision)
    if isinstance(model, CMLTriple) and isinstance(model.Teacher, Detector) and not model.batch_stats:
        record_shrink_map(model.Teacher, images[:1], precision)


def record_shrink_map(net: Detector, image: Tensor, precision: Precision) -> None:
    """`net.shrink_map` of pictures shaped and laid out as `image`, `(1, 3, H, W)`, replays a CUDA graph from now on.

    The net is in eval mode, stays so, and its weights stay where they are.
    """
    as_before, given = net.shrink_map, image.clone(memory_format=torch.preserve_format)
    with torch.no_grad(), _autocast(precision):
        _warm_up(lambda: as_before(given))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = as_before(given)

    def replay(images: Tensor) -> Tensor:
        if images.shape != given.shape or torch.is_grad_enabled():
            return as_before(images)
        given.copy_(images)
        graph.replay()
        return found.clone()

    net.shrink_map = replay  # type: ignore[method-assign]


def _record_training(student: Detector, images: Tensor, precision: Precision) -> None:
    as_before = student.forward
    student.train()
    # Recording runs the net a few times, on black pictures: its statistics must not remember them.
    statistics = {name: buffer.clone() for name, buffer in student.named_buffers()}
    with _autocast(precision):
        recorded: nn.Module = torch.cuda.make_graphed_callables(_Flat(student), (images,))  # type: ignore[assignment]
    with torch.no_grad():
        for name, buffer in student.named_buffers():
            buffer.copy_(statistics[name])
    for parameter in student.parameters():
        parameter.grad = None

    def replay(given: Tensor) -> Maps:
        if not student.training or given.shape != images.shape or not torch.is_grad_enabled():
            return as_before(given)
        return Maps(*recorded(given))

    student.forward = replay  # type: ignore[method-assign, assignment]


class _Flat(nn.Module):
    """A detector whose answer is a tuple, as a graph needs it."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.detector(images)
        return maps.shrink, maps.threshold, maps.binary


def _autocast(precision: Precision) -> torch.autocast:
    """As a step has it; without the cache of converted weights, which a graph must convert anew each time."""
    return torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


def _warm_up(run: Callable[[], object]) -> None:
    """Libraries choose their kernels and take their memory before a recording, on a stream that is not the default."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
