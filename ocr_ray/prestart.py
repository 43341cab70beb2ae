"""Processes that a cluster has ready before a run asks for them.

A run is half a dozen processes that start one after another. Each is new, for Ray ends a process with the actor that it
held, and nearly all of the time until the first step goes into their imports. Ray's raylets can start processes ahead
of any request and hand them to whoever asks next for one of the same environment; those that are asked for here import
at once what a run needs.

Ray has no public call for it: the request is one of its raylets' own, the environments are those that its Tune and its
Train give their processes. Where that changes, processes wait in vain, no more of them than one trial has.
"""

import contextlib
import importlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Any

import ray
from ray.experimental import internal_kv

BESIDE_WORKERS = 6
"""Processes of a trial beside its workers: Tune's own and the queue of its reports; Ray Train's controller, its cleaner
of placement groups, its manager of datasets, and the process at which workers wait for one another."""
WORKER_MARK = {"OCR_RAY_WORKER": "1"}
"""Part of the environment of a run's workers, which alone need all of the imports."""
KEPT_S = 7 * 24 * 3600
"""How long a process waits for its use. It ends with the job in any case."""
IMPORTS = ("ray.train.torch", "ray.tune.integration.ray_train", "ocr_ray.search.trial", "ocr_ray.train")
IMPORTS_OF_WORKERS = ("ray.train.torch", "ocr_ray.worker", "torch._dynamo")
"""The last one is imported by the first optimiser that is made."""
TICKET = "ticket-"
BOOK = b"ocr_ray.prestart"
"""Of the cluster's key-value store: an entry `job/node/kind/process` for each process that waits, and before it has
started `job/node/kind/ticket-number`."""


def fill_up(num_workers: int, per_worker: Mapping[str, float]) -> None:
    """Asks each machine of the connected cluster for what it lacks of the processes of one trial, waiting for none.

    Where the driver's environment has no hook for its processes (a submitted job has an environment of its own) they
    would import nothing, and none is asked for.

    Raises: RayError, RayStateApiException, grpc.RpcError, OSError when the cluster does not answer.
    """
    from ray.util.state import list_actors

    context = ray.get_runtime_context()
    if "worker_process_setup_hook" not in context.runtime_env:
        return
    used = {(actor.node_id, str(actor.pid)) for actor in list_actors(address=context.gcs_address, limit=10_000)}
    waiting: Counter[tuple[str, str]] = Counter()
    for entry in internal_kv._internal_kv_list(f"{context.get_job_id()}/", namespace=BOOK):
        _, node, kind, process = entry.decode().split("/")
        if (node, process) in used:
            internal_kv._internal_kv_del(entry, namespace=BOOK)
        else:
            waiting[node, kind] += 1
    for machine in ray.nodes():
        has = machine["Resources"]
        if not machine["Alive"] or not has.get("CPU"):
            continue
        room = min(num_workers, *(int(has.get(name, 0.0) / amount + 1e-9) for name, amount in per_worker.items()))
        for kind, wanted in (("other", BESIDE_WORKERS), ("worker", room)):
            lacking = wanted - waiting[machine["NodeID"], kind]
            if lacking > 0:
                _ask(machine, kind, lacking)


def import_ahead() -> None:
    """First of all in every process of the cluster: imports what a worker needs in workers, and `IMPORTS` in the others
    that were started ahead.

    These do not know why they were started. There is a ticket for each that was asked for; a process that finds none is
    wanted now, and imports what it needs by itself.
    """
    with contextlib.suppress(Exception):  # what makes a start faster must not keep it from happening
        _import_ahead()


def _import_ahead() -> None:
    kind = "worker" if WORKER_MARK.items() <= os.environ.items() else "other"
    context = ray.get_runtime_context()
    place = f"{context.get_job_id()}/{context.get_node_id()}/{kind}"
    for ticket in internal_kv._internal_kv_list(f"{place}/{TICKET}", namespace=BOOK):
        if internal_kv._internal_kv_del(ticket, namespace=BOOK):  # how many there were: another may be faster
            internal_kv._internal_kv_put(f"{place}/{os.getpid()}", b"", namespace=BOOK)
            break
    else:
        if kind == "other":
            return
    for name in IMPORTS_OF_WORKERS if kind == "worker" else IMPORTS:
        with contextlib.suppress(Exception):  # it comes again where the module is used
            importlib.import_module(name)


def _ask(machine: Mapping[str, Any], kind: str, count: int) -> None:
    from ray._private.grpc_utils import init_grpc_channel
    from ray._private.utils import get_runtime_env_info
    from ray.core.generated import common_pb2, node_manager_pb2, node_manager_pb2_grpc
    from ray.tune.execution.class_cache import DEFAULT_ENV_VARS, ENV_VARS_TO_PROPAGATE

    context = ray.get_runtime_context()
    environment = json.loads(context.get_runtime_env_string())
    environment["env_vars"] |= DEFAULT_ENV_VARS | {k: os.environ[k] for k in ENV_VARS_TO_PROPAGATE if k in os.environ}
    if kind == "worker":
        environment["env_vars"] |= WORKER_MARK
    info = get_runtime_env_info(context.runtime_env, is_job_runtime_env=True)
    # Ray compares what is written, to the last space.
    info.serialized_runtime_env = json.dumps(environment, sort_keys=True, separators=(",", ":"))
    request = node_manager_pb2.PrestartWorkersRequest(  # type: ignore[attr-defined]  # generated
        language=common_pb2.PYTHON,  # type: ignore[attr-defined]
        job_id=bytes.fromhex(context.get_job_id()),
        runtime_env_info=info,
        keep_alive_duration_secs=KEPT_S,
        num_workers=count,
    )
    for _ in range(count):
        ticket = f"{context.get_job_id()}/{machine['NodeID']}/{kind}/{TICKET}{uuid.uuid4().hex}"
        internal_kv._internal_kv_put(ticket, b"", namespace=BOOK)
    with init_grpc_channel(f"{machine['NodeManagerAddress']}:{machine['NodeManagerPort']}") as channel:
        node_manager_pb2_grpc.NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=10)
