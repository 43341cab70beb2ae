"""State of a run on disk: a folder with `model.safetensors`, `state.pt` and `meta.json`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from ocr_ray.errors import RunError
from ocr_ray.weights.safetensors import read_safetensors, write_safetensors


@dataclass(frozen=True)
class RunState:
    """Where a run stands between two epochs."""

    epoch: int = 0
    """Finished epochs."""
    step: int = 0
    """Optimiser updates done in them; `run.new_parts_steps` do not count."""
    hmean: float = 0.0
    """Of the last evaluation."""
    best_hmean: float = -1.0
    """-1 before the first evaluation, so that it is kept even when it finds nothing."""
    best_epoch: int = 0
    best_keep: float | None = None
    """Hmean on the second validation set after the best epoch; it chose nothing."""

    def evaluated(self, hmean: float) -> tuple["RunState", bool]:
        """The state after an evaluation, and whether it is the best so far (ties go to the newer one)."""
        best = hmean >= self.best_hmean
        state = replace(self, hmean=hmean)
        return (replace(state, best_hmean=hmean, best_epoch=self.epoch), True) if best else (state, False)


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The state entries that a run changes, so that a frozen teacher of 126 MiB is not written at every epoch.

    A teacher in `batch_stats` mode has running statistics that move; then its entries are kept too.
    """
    frozen = "Teacher." if not getattr(model, "batch_stats", False) else None
    return {
        name: value
        for name, value in model.state_dict().items()
        if not (frozen and name.startswith(frozen)) and not name.endswith("num_batches_tracked")
    }


def checkpoint_bytes(model: nn.Module) -> int:
    """How large a checkpoint of `model` is, to a few kilobytes: what it trains, and two moments of Adam for each
    parameter among it."""
    state = sum(value.nbytes for value in trained_state(model).values())
    return state + 2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: RunState,
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes into an existing folder; making that folder appear whole is its owner's work (Ray's `report`).

    Args: metadata goes into `model.safetensors`, so that a sub-model taken out of it knows how it is to be used.
    """
    arrays = {name: value.detach().cpu().numpy() for name, value in trained_state(model).items()}
    write_safetensors(folder / "model.safetensors", arrays, {**metadata, "state": json.dumps(asdict(state))})
    torch.save(optimizer.state_dict(), folder / "state.pt")
    (folder / "meta.json").write_text(json.dumps(asdict(state), indent=2))


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> RunState:
    """Puts weights and optimiser back and says where the run stood.

    Raises: RunError when the checkpoint is of another model than `model`.
    """
    arrays, _ = read_safetensors(folder / "model.safetensors")
    expected = trained_state(model)
    if arrays.keys() != expected.keys():
        odd = sorted(arrays.keys() ^ expected.keys())
        raise RunError(f"{folder}: is a checkpoint of another model: {len(odd)} names differ, e.g. {odd[0]}")
    with torch.no_grad():
        for name, target in expected.items():
            if target.shape != arrays[name].shape:
                raise RunError(
                    f"{folder}: is a checkpoint of another model: {name} is {arrays[name].shape}, "
                    f"expected {tuple(target.shape)}"
                )
            target.copy_(torch.from_numpy(arrays[name]))
    optimizer.load_state_dict(torch.load(folder / "state.pt", weights_only=True, map_location="cpu"))
    return RunState(**json.loads((folder / "meta.json").read_text()))
