"""How many trials a cluster holds at a time, counted before any of them waits for room that never comes."""

from collections.abc import Mapping, Sequence

import ray
import ray.exceptions
from ray.util.state import list_actors
from ray.util.state.exception import RayStateApiException

from ocr_ray.errors import ClusterError

TRIAL_CPU = 0.01
"""Share of the process that stands for a trial. It counts: two trials of 1 CPU do not fit on 2."""
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
    free = [_units(node) for node in nodes]
    if not all(_take(free, _units(share)) for share in beside):
        return 0
    worker, trial = _units(per_worker), _units({"CPU": TRIAL_CPU})
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
        raise ClusterError(
            f"no trial can ever be placed: it needs ray.num_workers={num_workers} of {wanted} each and "
            f"{TRIAL_CPU:g} CPU beside them, and the cluster has {len(nodes)} machine{'s' * (len(nodes) != 1)} of {has}"
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


def _units(amounts: Mapping[str, float]) -> dict[str, int]:
    return {name: round(amount * UNIT) for name, amount in amounts.items() if amount}


def _take(free: list[dict[str, int]], share: Mapping[str, int]) -> bool:
    for node in free:
        if all(node.get(name, 0) >= amount for name, amount in share.items()):
            for name, amount in share.items():
                node[name] -= amount
            return True
    return False


def _amounts(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())
