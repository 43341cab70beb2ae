"""How many trials a cluster holds at a time, counted before any of them waits for room that never comes."""

from collections.abc import Mapping, Sequence

import ray
import ray.exceptions
from ray.util.state import list_actors
from ray.util.state.exception import RayStateApiException

from ocr_ray.errors import ClusterError

TRIAL_CPU = 0.01
"""Share of the process that stands for a trial. It counts: two trials of 1 CPU do not fit on 2."""
GPU = "GPU"
UNIT = 10_000
"""Ray counts resources in ten-thousandths."""


def trials_at_once(
    num_workers: int,
    per_worker: Mapping[str, float],
    nodes: Sequence[Mapping[str, float]],
    beside: Sequence[Mapping[str, float]] = (),
) -> int:
    """How many trials of so many workers fit on empty nodes at the same time; a worker lies on one node.

    Args: per_worker and nodes are amounts by resource, e.g. `{"CPU": 1.0, "GPU": 1.0}`; beside are those of processes
        that stay as long as the sweep.
    """
    free = [_Node(node) for node in nodes]
    if not all(_take(free, share) for share in beside):
        return 0
    worker, trial = {name: amount for name, amount in per_worker.items() if amount}, {"CPU": TRIAL_CPU}
    count = 0
    # Trial by trial, its own process last: where both want the last CPU of a node, the worker is the harder to place.
    while all(_take(free, share) for share in [*[worker] * num_workers, trial]):
        count += 1
    return count


def room_for_trials(
    num_workers: int, per_worker: Mapping[str, float], beside: Sequence[Mapping[str, float]] = ()
) -> int:
    """`trials_at_once` in the connected cluster. Raises: ClusterError when not even one can ever be placed."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    count = trials_at_once(num_workers, per_worker, nodes, beside)
    if not count:
        wanted = _amounts(per_worker)
        has = "; ".join(_amounts({k: node[k] for k in ("CPU", "GPU", *per_worker) if k in node}) for node in nodes)
        others = f", beside {len(beside)} teacher.producers of {_amounts(beside[0])} each" if beside else ""
        raise ClusterError(
            f"no trial can ever be placed: it needs ray.num_workers={num_workers} of {wanted} each and "
            f"{TRIAL_CPU:g} CPU beside them{others}, and the cluster has "
            f"{len(nodes)} machine{'s' * (len(nodes) != 1)} of {has}"
        )
    return count


def check_state_api() -> None:
    """A trial that is ended early leaves its workers' room to a cleaner that asks the State API, which lives in the
    dashboard. Raises: ClusterError when it does not answer."""
    try:
        # By its address: a machine may hold more clusters than this one.
        list_actors(address=ray.get_runtime_context().gcs_address, limit=1, timeout=30)
    except (RayStateApiException, ray.exceptions.RayError, ConnectionError, ValueError, RuntimeError) as e:
        raise ClusterError(
            "the cluster's dashboard does not answer, and without it the room of a trial that is ended early is never "
            f"given back: start Ray with ray[default] and --include-dashboard=true ({str(e).splitlines()[0]})"
        ) from e


class _Node:
    """What is free on a machine. A part of a GPU has to lie on one card, so cards count one by one."""

    def __init__(self, amounts: Mapping[str, float]) -> None:
        self._free = {name: round(amount * UNIT) for name, amount in amounts.items() if name != GPU}
        self._cards = [UNIT] * int(amounts.get(GPU, 0))

    def take(self, share: Mapping[str, float]) -> bool:
        """Takes `share` where all of it is free. Returns: whether it was."""
        units = {name: round(amount * UNIT) for name, amount in share.items() if name != GPU and amount}
        cards = self._cards_for(round(share.get(GPU, 0) * UNIT))
        if cards is None or any(self._free.get(name, 0) < amount for name, amount in units.items()):
            return False
        for name, amount in units.items():
            self._free[name] -= amount
        for card, amount in cards.items():
            self._cards[card] -= amount
        return True

    def _cards_for(self, units: int) -> dict[int, int] | None:
        whole, part = divmod(units, UNIT)
        if part and whole:
            return None  # Ray takes no 1.5 GPUs
        if part:  # the fullest card that has it
            able = [(free, card) for card, free in enumerate(self._cards) if free >= part]
            return {min(able)[1]: part} if able else None
        empty = [card for card, free in enumerate(self._cards) if free == UNIT]
        return dict.fromkeys(empty[:whole], UNIT) if len(empty) >= whole else None


def _take(nodes: list[_Node], share: Mapping[str, float]) -> bool:
    return any(node.take(share) for node in nodes)


def _amounts(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())
