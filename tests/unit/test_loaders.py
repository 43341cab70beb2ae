"""Loaders of a process that is killed do not outlive it."""

import subprocess
import sys
import textwrap

import psutil

PROGRAM = """
    import os, time
    from torch.utils.data import DataLoader
    from ocr_ray.data.loaders import EndsWith, loader_processes

    def main():
        loader = DataLoader(
            range(1000), num_workers=2, persistent_workers=True,
            multiprocessing_context=loader_processes(), worker_init_fn=EndsWith(),
        )
        batches = iter(loader)
        next(batches)
        print(*(worker.pid for worker in batches._workers), flush=True)
        time.sleep(600)

    if __name__ == "__main__":
        main()
"""


def test_loaders_end_with_a_process_that_is_killed() -> None:
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        loaders = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        servers = [loader.parent() for loader in loaders]
        assert len(loaders) == 2
        assert all(loader.is_running() for loader in loaders)
        process.kill()
    left = [p for p in (*loaders, *servers) if p is not None and p.pid != 1]
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive
