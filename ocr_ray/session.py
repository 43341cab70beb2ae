"""The connection to a Ray cluster: one of our own, the one we were submitted to, or one at an address."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psutil
import ray

from ocr_ray.errors import ClusterError, ConfigError, in_one_line
from ocr_ray.prestart import import_ahead
from ocr_ray.settings import ClusterConfig

T = TypeVar("T")
WORKER_ENV = {
    # The controller of a run polls its workers every 2 s by default, and a report waits for it.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    # Workers otherwise print a line for each report.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # Ray Train's own value for its processes: named here, theirs is the environment of all others, and a process that
    # was started ahead fits them too.
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
}
"""What the processes of a run find in their environment, on every machine."""
SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray in the environment of a submitted job's driver."""
OWN_CLUSTER_ENV = {
    # No one takes this machine away, and the watcher is one more process for each run.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
OWN_RAYLET_ENV = {
    # A run is half a dozen processes that mostly wait for one another. By default no more start at a time than there
    # are cores, and a line complains when four times as many are there.
    "RAY_worker_maximum_startup_concurrency": "16",
}
LEAVING_S = 0.5
"""After an interrupt no longer is waited for the end of the connection."""


def set_up_process() -> None:
    """Runs first in every process of the cluster. What asks the State API there, such as the cleaner that gives a
    stopped trial's workers back, otherwise searches the machine for a cluster and gives up when it finds two."""
    os.environ.setdefault("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    import_ahead()


@contextmanager
def connected(cluster: ClusterConfig) -> Iterator[None]:
    """Connected while the block runs. A cluster of our own ends with the block, and its processes with it: in order, or
    at once after an interrupt.

    SIGTERM (of `kill`, of `ray job stop`) then stops the block as Ctrl-C does, by a KeyboardInterrupt.

    The address is the config's, or RAY_ADDRESS (which Ray sets inside a submitted job); with neither, a cluster of
    our own is started on this machine. Already connected, it is left as it is.

    Raises: ClusterError when nothing answers at the address, or a cluster of our own does not come up.
    """
    if ray.is_initialized():
        with sigterm_as_ctrl_c():
            yield
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS") or "local"
    own = address == "local"
    others = set(psutil.Process().children())
    runtime_env = {
        "env_vars": WORKER_ENV | OWN_CLUSTER_ENV if own else WORKER_ENV,
        "worker_process_setup_hook": f"{__name__}.{set_up_process.__name__}",
    }
    try:
        if own:
            for key, value in OWN_RAYLET_ENV.items():
                os.environ.setdefault(key, value)
            _start_own(runtime_env, others)
        elif SUBMITTED in os.environ:
            # A submitted job has a runtime environment of its own; it is left as it is.
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime_env)
    except (ConnectionError, ValueError, RuntimeError) as e:
        raise ClusterError(f"no Ray cluster at {address}: {str(e).splitlines()[0]}") from e
    cluster_processes = set(psutil.Process().children()) - others
    at_once = False
    try:
        with sigterm_as_ctrl_c():
            yield
    except KeyboardInterrupt:
        at_once = own
        raise
    finally:
        if at_once:
            _end_at_once(cluster_processes)
            # What was killed does not answer, and Ray waits for it: who goes on after an interrupt need not.
            leaving = threading.Thread(target=ray.shutdown, name="leaving", daemon=True)
            leaving.start()
            leaving.join(LEAVING_S)
        else:
            ray.shutdown()


def _start_own(runtime_env: dict[str, Any], others: set[psutil.Process]) -> None:
    """A cluster on this machine, to which this process, with `others` for children, is then connected.

    Raises: ClusterError when it does not come up, of which nothing is then left.
    """
    try:
        # The dashboard stays on: a stopped trial's placement group is given back by way of its State API.
        ray.init(
            "local",
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=runtime_env,
        )
    except Exception as e:  # Ray raises as such what its parts did not do in time
        _end_at_once(set(psutil.Process().children()) - others)
        with suppress(Exception):
            ray.shutdown()
        raise ClusterError(
            f"Ray did not start on this machine ({in_one_line(e)}): it is busy, or short of memory or disk; try again "
            "when less runs on it, or start a cluster with `ray start --head` and name it by ray.address"
        ) from e


def _end_at_once(processes: Iterable[psutil.Process]) -> None:
    """Kills them and all that they have started. Ray's own way takes five seconds, more where a part is gone already,
    as when SIGTERM came to all of them."""
    family = list(processes)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            family += process.children(recursive=True)
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """While the block runs, SIGTERM raises KeyboardInterrupt in it, so that what is open is closed in order.

    `ray.init` puts a handler of its own in place, which ends the process at once: this one goes inside. It does
    nothing outside the main thread, where Python lets no one handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def gpus_in_cluster() -> int:
    """How many GPUs the connected cluster has in all."""
    return int(ray.cluster_resources().get("GPU", 0))


def on_a_gpu(function: Callable[..., T], *arguments: Any) -> T:
    """What `function` gives, called on a GPU of the connected cluster where that has one and this process has none,
    else here."""
    import torch  # who only wants a connection need not wait for it

    if gpus_in_cluster() and not torch.cuda.is_available():
        found: T = ray.get(ray.remote(num_gpus=1)(function).remote(*arguments))
        return found
    return function(*arguments)


def threads_of_environment() -> int:
    """CPU threads that `OMP_NUM_THREADS` gives a process; 0 where it says nothing. Raises: ConfigError."""
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if given and not given.isdigit():
        raise ConfigError(f"OMP_NUM_THREADS: expected a number of threads, found {given}")
    return int(given or 0)
