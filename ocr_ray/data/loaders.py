"""Loader processes: how they start, and that they end with the process that wants their pictures."""

import multiprocessing
import os
import threading
import time
from multiprocessing.context import BaseContext

import psutil

LOOK_S = 2.0
"""How often a loader looks whether it is still wanted."""


def loader_processes() -> BaseContext:
    """How loaders start: not forked from a worker, since OpenCV's and the collectives' threads do not survive a fork.

    They are forked from a process that has done nothing but import what they need: four of them are there after 1.6 s
    instead of 4.7 s in which each imports torch, and those of a later loader after 0.5 s.
    """
    context = multiprocessing.get_context("forkserver")
    # `__main__` is Python's own default: loaders import it as well, and in a worker of Ray it is Ray.
    context.set_forkserver_preload(["__main__", "ocr_ray.data.compact"])
    return context


class EndsWith:
    """A `worker_init_fn` of a DataLoader made in this process: loaders end soon after it, however it ends.

    PyTorch's loaders watch their parent, which is the fork server here, and the fork server lives as long as they do: a
    worker that is killed, as a trial that a scheduler ends, would leave all of them behind.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._began = psutil.Process().create_time()

    def __call__(self, loader: int) -> None:
        """Runs in loader number `loader` before its first sample."""
        threading.Thread(target=self._watch, name="ends-with", daemon=True).start()

    def _watch(self) -> None:
        while self._is_there():
            time.sleep(LOOK_S)
        os._exit(1)

    def _is_there(self) -> bool:
        try:
            process = psutil.Process(self._pid)
            return process.create_time() == self._began and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False
