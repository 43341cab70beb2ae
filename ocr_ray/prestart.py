"""Processes that a cluster has ready before a run asks for them.

A run is half a dozen processes that start one after another. Each is new, for Ray ends a process with the actor it held,
and nearly all of the time until the first step goes into their imports. Ray's raylets can start processes ahead of any
request and hand them to whoever asks next for one of the same environment; these here import at once what a run needs.

What fails here costs nothing but the time that it was to save.
"""

import contextlib
import importlib
import json
import os

import grpc
import ray
from ray._private.grpc_utils import init_grpc_channel
from ray._private.utils import get_runtime_env_info
from ray.core.generated import node_manager_pb2, node_manager_pb2_grpc
from ray.core.generated.common_pb2 import Language
from ray.experimental import internal_kv

BESIDE_WORKERS = 6
"""Processes of a trial beside its workers: Tune's own and the queue of its reports; Ray Train's controller, its cleaner,
its manager of datasets, and the process at which workers wait for one another."""
WORKER_MARK = {"OCR_RAY_WORKER": "1"}
"""Part of the environment of a run's workers, which alone need all of the imports."""
KEPT_S = 7 * 24 * 3600
"""How long a process waits for its use. It ends with the job in any case."""
IMPORTS = ("ray.train.torch", "ray.tune.integration.ray_train", "ocr_ray.search.trial", "ocr_ray.train")
IMPORTS_OF_WORKERS = ("ray.train.torch", "ocr_ray.worker", "torch._dynamo")
"""The last one is imported by the first optimiser that is made."""
NAMESPACE = b"ocr_ray.prestart"


def start_ahead(num_workers: int) -> None:
    """Asks each machine of the connected cluster for the processes of one trial, and does not wait for them.

    Where the driver's environment has no hook for its processes (a submitted job has an environment of its own) they
    would import nothing, and none is asked for.
    """
    from ray.tune.execution.class_cache import DEFAULT_ENV_VARS, ENV_VARS_TO_PROPAGATE

    context = ray.get_runtime_context()
    environment = json.loads(context.get_runtime_env_string())
    if "worker_process_setup_hook" not in environment:
        return
    of_tune = DEFAULT_ENV_VARS | {key: os.environ[key] for key in ENV_VARS_TO_PROPAGATE if key in os.environ}
    for count, mark in ((BESIDE_WORKERS, {}), (num_workers, WORKER_MARK)):
        environment["env_vars"] |= of_tune | mark
        info = get_runtime_env_info(context.runtime_env, is_job_runtime_env=True)
        # Ray compares what is written, to the last space.
        info.serialized_runtime_env = json.dumps(environment, sort_keys=True, separators=(",", ":"))
        request = node_manager_pb2.PrestartWorkersRequest(
            language=Language.Value("PYTHON"),
            job_id=bytes.fromhex(context.get_job_id()),
            runtime_env_info=info,
            keep_alive_duration_secs=KEPT_S,
            num_workers=count,
        )
        for node in ray.nodes():
            if not node["Alive"]:
                continue
            for number in range(0 if mark else count):
                internal_kv._internal_kv_put(f"{node['NodeID']}/{number}", b"", namespace=NAMESPACE)
            address = f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
            with contextlib.suppress(grpc.RpcError), init_grpc_channel(address) as channel:
                node_manager_pb2_grpc.NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=10)


def import_ahead() -> None:
    """First of all in every process of the cluster: imports what a worker needs in workers, and `IMPORTS` in the others
    that were started ahead.

    These do not know why they were started. There is a ticket for each that was asked for; a process that finds none is
    wanted now, and imports what it needs by itself.
    """
    if WORKER_MARK.items() <= os.environ.items():
        _import(IMPORTS_OF_WORKERS)
        return
    node = ray.get_runtime_context().get_node_id()
    for ticket in internal_kv._internal_kv_list(f"{node}/", namespace=NAMESPACE):
        if internal_kv._internal_kv_del(ticket, namespace=NAMESPACE):  # how many there were: another may be faster
            _import(IMPORTS)
            return


def _import(names: tuple[str, ...]) -> None:
    for name in names:
        with contextlib.suppress(Exception):  # it comes again where the module is used
            importlib.import_module(name)
