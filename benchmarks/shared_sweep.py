"""A CML sweep of eight trials under ASHA: CPU time of all its processes, the teacher shared and live."""

import contextlib
import io
import threading
import time
from collections.abc import Iterator

import psutil
import torch
from rich.console import Console

from benchmarks.rows import Bench, Row, Subject
from ocr_ray.config import CMLConfig, RecipeConfig, override
from ocr_ray.data.labels import format_line
from ocr_ray.files import write_text
from ocr_ray.model_card import ModelCard, save_detector
from ocr_ray.models.detector import Detector, teacher_config
from ocr_ray.progress import LiveFeed
from ocr_ray.session import connected
from ocr_ray.settings import ClusterConfig
from ocr_ray.spaces import space_from_plain
from ocr_ray.sweep_result import SweepResult
from ocr_ray.tune import sweep

SETTINGS = (
    *("data.augment.crop_width=320", "data.augment.crop_height=320", "data.batch_size=4", "data.epoch_size=40"),
    *("data.num_workers=0", "optim.epochs=9", "optim.lr=3e-3", "optim.warmup_epochs=0.5", "run.threads=1"),
    *("run.evaluate_start=false", "eval.every_epochs=3", "data.val_size=2", "eval.resize.limit_side_len=320"),
    *("eval.resize.limit_type=max", "ray.cpus_per_worker=0.9", "ray.address=local"),
    *(
        "sweep.trials=8",
        "sweep.scheduler=asha",
        "sweep.grace_epochs=3",
        "sweep.reduction_factor=3",
        "sweep.searcher=random",
    ),
)


def rows(bench: Bench) -> list[Row]:
    """One row: nets of the recipe's full size, random weights, 90 steps to a whole trial."""
    labels = bench.folder / "labels.txt"
    lines = [format_line(str(s.image), s.polygons, s.texts) for s in bench.pictures.samples]
    write_text(labels, "\n".join(lines) + "\n")
    torch.manual_seed(0)
    weights = bench.folder / "teacher.safetensors"
    save_detector(weights, Detector(teacher_config()), ModelCard(detector=teacher_config()))
    paths = (f"data.train=[{labels}]", f"data.val=[{labels}]", f"teacher.weights={weights}", "data.root=/")
    cfg = override(CMLConfig(), [*SETTINGS, *paths, f"ray.storage={bench.folder}/runs"])
    shared, shared_s = _measured(cfg, "shared")
    live, live_s = _measured(override(cfg, ["teacher.shared=false"]), "live")
    whole = sum(t.epochs for t in shared.trials) / (9 * len(shared.trials))
    assert shared.taught is not None
    return [
        Row(
            "CML sweep of 8 trials under ASHA, teacher shared, 320x320, batch 4",
            shared_s / live_s,
            1 / 3,
            "of the CPU time with live teachers",
            f"{shared_s:.0f} against {live_s:.0f} CPU-seconds of all processes, starts, evaluations and the making of "
            f"the answers ({shared.taught.seconds:.0f} s) included; trials came {whole:.0%} (shared) and "
            f"{sum(t.epochs for t in live.trials) / (9 * len(live.trials)):.0%} (live) of their way. One run of each, "
            "one after the other; what remains is the students' own steps, one whole teacher's pass, and the start of "
            "seven processes a trial",
            1.0,
        )
    ]


def _measured(cfg: RecipeConfig, name: str) -> tuple[SweepResult, float]:
    space = space_from_plain({"loss.distill.weight": {"loguniform": [0.25, 4.0]}}, cfg, "benchmark")
    with _cpu_seconds() as seconds, connected(ClusterConfig(address="local")):
        result = sweep(cfg, space, name=name, live=LiveFeed(Console(file=io.StringIO())))
    return result, seconds[0]


@contextlib.contextmanager
def _cpu_seconds() -> Iterator[list[float]]:
    """The CPU seconds of this process and all below it while the block runs; known when it has ended.

    Processes are looked at every quarter of a second: what one did after the last look at it is left out.
    """
    me, seen, over = psutil.Process(), dict[tuple[int, float], float](), threading.Event()
    before = sum(me.cpu_times()[:2])
    found = [0.0]

    def watch() -> None:
        while not over.wait(0.25):
            for process in me.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    seen[process.pid, process.create_time()] = sum(process.cpu_times()[:2])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        time.sleep(0.5)
        over.set()
        thread.join()
        found[0] = sum(seen.values()) + sum(me.cpu_times()[:2]) - before


SUBJECT = Subject("shared_sweep", rows, quick=False)
