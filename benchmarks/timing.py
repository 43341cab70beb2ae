"""CPU seconds of several sides, taken alternately, so that a noisy machine is noisy for all of them."""

import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray


def alternate(
    sides: Mapping[str, Callable[[int], object]], num_keys: int, rounds: int, clock: Callable[[], float] | None = None
) -> dict[str, NDArray[np.float64]]:
    """Calls each side with each key, side after side, in `rounds` rounds over all keys.

    Args: a side given the same key does the same work each time; clock is by default the CPU time of this thread.
    Returns: per side the seconds of each key, `(num_keys,)`: the least of its rounds, since others on the machine only
        ever add. Between two rounds of a key lie all other keys, so no side finds its data in the processor's cache.
    """
    clock = clock or time.thread_time
    seconds = {name: np.full((rounds, num_keys), np.inf) for name in sides}
    for turn in range(rounds):
        for key in range(num_keys):
            for name, side in sides.items():
                started = clock()
                side(key)
                seconds[name][turn, key] = clock() - started
    return {name: each.min(axis=0) for name, each in seconds.items()}
