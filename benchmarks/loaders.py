"""What starting the loader processes costs, and what reading decoded pictures from shared memory saves."""

import multiprocessing
import statistics
import subprocess
import sys
import time

import torch

from benchmarks.pipeline import SEED
from benchmarks.rows import Bench, Row, Subject
from benchmarks.timing import alternate
from ocr_ray.config import DataConfig, StudentConfig
from ocr_ray.data.augment import AugmentConfig
from ocr_ray.data.copy_paste import CopyPasteConfig
from ocr_ray.data.dataset import TrainDataset
from ocr_ray.data.decoded import SHARED_MEMORY, decoded_store
from ocr_ray.data.targets import TargetConfig
from ocr_ray.recipes import build_model, build_training

NUM_LOADERS = 4


def rows(bench: Bench) -> list[Row]:
    """Three rows."""
    return [*_decoded(bench), _start(bench)]


def _decoded(bench: Bench) -> list[Row]:
    memory = SHARED_MEMORY if SHARED_MEMORY.is_dir() else bench.folder
    samples = bench.pictures.samples
    found = []
    for pasting in (False, True):
        augment = AugmentConfig(copy_paste=CopyPasteConfig(enabled=pasting))
        bare = TrainDataset(samples, augment, TargetConfig(), SEED)
        stored = TrainDataset(samples, augment, TargetConfig(), SEED, decoded_store(1024, memory))
        for index in range(len(samples)):
            bare[(0, index)], stored[(0, index)]
        sides = {"bare": lambda i, d=bare: d[(0, i)], "stored": lambda i, d=stored: d[(0, i)]}
        seconds = {k: float(v.mean()) for k, v in alternate(sides, len(samples), 3 if bench.quick else 7).items()}
        found.append(
            Row(
                f"sample from the store of decoded pictures{', CopyPaste' if pasting else ''}",
                seconds["stored"] / seconds["bare"],
                1.0,
                "of one that decodes",
                f"{1000 * seconds['stored']:.2f} ms against {1000 * seconds['bare']:.2f} ms CPU; pictures in {memory}",
            )
        )
    return found


def _start(bench: Bench) -> Row:
    """In processes of their own, since the first start in a process differs from later ones."""
    seconds: dict[bool, list[list[float]]] = {True: [], False: []}
    for _ in range(1 if bench.quick else 3):
        for preload in (True, False):
            code = f"from benchmarks.loaders import start; start({str(bench.pictures.label_file)!r}, {preload})"
            done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, check=True)
            seconds[preload].append([float(word) for word in done.stdout.split()])
    ours, plain = ([statistics.median(column) for column in zip(*seconds[p], strict=True)] for p in (True, False))
    return Row(
        f"start of {NUM_LOADERS} loaders, second set in a process",
        ours[1] / plain[1],
        None,
        "of loaders that import all by themselves",
        f"wall seconds to the first batch: {ours[1]:.2f} against {plain[1]:.2f}; first set {ours[0]:.2f} "
        f"against {plain[0]:.2f}, the fork server's own start included",
    )


def start(label_file: str, preload: bool) -> None:
    """Prints the wall seconds from a loader's start to its first batch, first and second time in this process."""
    cfg = StudentConfig(data=DataConfig(train=(label_file,), val=(label_file,), batch_size=1, num_workers=NUM_LOADERS))
    training = build_training(cfg, build_model(cfg), torch.device("cpu"))
    if not preload:
        multiprocessing.set_forkserver_preload(["__main__"])  # as it is by default
    for _ in range(2):
        started = time.monotonic()
        next(iter(training.loader))
        print(time.monotonic() - started, flush=True)
        training.loader._iterator = None  # its processes end


SUBJECT = Subject("loaders", rows)
