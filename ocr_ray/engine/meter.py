"""What an epoch adds up to: loss parts, pictures, waiting, failures; and signs of life while it runs."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ocr_ray.data.compact import Loaded
from ocr_ray.errors import DataError
from ocr_ray.losses.combined import LossParts


@dataclass(frozen=True)
class StepEvent:
    """A sign of life, at most two a second: `step` of `steps` in `epoch` (from 1; 0 while new parts are trained)."""

    epoch: int
    step: int
    steps: int
    loss: float
    evaluating: bool = False
    """All steps are done, and the students are being evaluated."""


class LossNotFinite(Exception):
    """A loss that is not finite, with the parts it was made of and the pictures of its batch."""

    def __init__(self, where: str, parts: dict[str, float], paths: tuple[str, ...]) -> None:
        self.where, self.parts, self.paths = where, parts, paths
        super().__init__(f"{where}: loss is not finite: {parts}")


class EpochMeter:
    """Sums up an epoch without making the device wait: a step's loss is read while the next step runs."""

    def __init__(
        self,
        rank: int,
        world_size: int,
        device: torch.device,
        max_failed: float,
        epoch: int,
        steps: int,
        first_step: int,
        on_step: Callable[[StepEvent], None],
        done: int = 0,
    ) -> None:
        self._rank, self._world_size, self._device, self._max_failed = rank, world_size, device, max_failed
        self._epoch, self._steps, self._first_step = epoch, steps, first_step
        self._on_step = on_step
        self._done = done
        self._names: tuple[str, ...] = ()
        self._sums: list[float] = []
        self._count = 0
        self._pictures = 0
        self.failures: tuple[str, ...] = ()
        self._pending: tuple[Tensor, Loaded] | None = None
        self._waited = 0.0
        self._began = time.monotonic()
        self._last_event = 0.0

    def timed(self, batches: Iterator[Loaded]) -> Iterator[Loaded]:
        """The batches, with the time spent waiting for them added up."""
        while True:
            before = time.monotonic()
            batch = next(batches, None)
            self._waited += time.monotonic() - before
            if batch is None:
                return
            yield batch

    def add(self, parts: LossParts, batch: Loaded) -> None:
        """Takes in a step that was just begun, after reading the one before. Raises: LossNotFinite."""
        self.settle()
        self._names = tuple(parts.values)
        self._pending = (torch.stack([parts.total, *parts.values.values()]).detach(), batch)
        self._pictures += len(batch.paths)
        self.failures += tuple(f"{failure.path}: {failure.reason}" for failure in batch.failures)

    def settle(self) -> None:
        """Reads the pending step. Raises: LossNotFinite."""
        if self._pending is None:
            return
        stacked, batch = self._pending
        self._pending = None
        values = stacked.tolist()
        if not torch.isfinite(stacked).all():
            parts = dict(zip(("total", *self._names), values, strict=True))
            step = self._first_step + self._count
            where = f"step {step}" if self._epoch else f"step {step} of those that train new parts alone"
            raise LossNotFinite(where, parts, batch.paths)
        self._sums = [a + b for a, b in zip(self._sums, values, strict=True)] if self._sums else values
        self._count += 1
        self._done += 1
        if self._rank == 0 and time.monotonic() - self._last_event > 0.5:
            self._last_event = time.monotonic()
            self._on_step(StepEvent(self._epoch, self._done, self._steps, values[0]))

    def epoch_metrics(self) -> dict[str, float]:
        """Means over the epoch and over all ranks. Raises: LossNotFinite, DataError."""
        self.settle()
        seconds = time.monotonic() - self._began
        totals = torch.tensor([*self._sums, self._count, self._pictures, len(self.failures)], dtype=torch.float64)
        if self._world_size > 1:
            totals = totals.to(self._device, torch.float32)
            dist.all_reduce(totals)
        *sums, count, pictures, failures = totals.tolist()
        if failures and self._world_size > 1:
            gathered: list[tuple[str, ...]] = [()] * self._world_size
            dist.all_gather_object(gathered, self.failures)
            self.failures = tuple(failure for part in gathered for failure in part)
        if failures > self._max_failed * pictures:
            raise DataError(
                f"{failures:.0f} of {pictures:.0f} pictures failed in epoch {self._epoch}, more than the share of "
                f"data.max_failed={self._max_failed:g}; the first: {self.failures[0]}"
            )
        metrics = {f"loss.{name}": value / count for name, value in zip(("total", *self._names), sums, strict=True)}
        metrics["images_per_s"] = pictures / seconds
        metrics["time.data_s"] = self._waited
        metrics["time.step_s"] = (seconds - self._waited) / max(self._count, 1)
        metrics["data.failed"] = failures
        return metrics
