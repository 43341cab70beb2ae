"""A student whose architecture is searched: what it costs, and whether it can start from the weights that are given."""

import hashlib
import json
import time
from pathlib import Path

import torch

from ocr_ray.config import RecipeConfig
from ocr_ray.distributions import ends
from ocr_ray.errors import ConfigError, WeightsError
from ocr_ray.files import write_text
from ocr_ray.models.detector import Detector, DetectorConfig
from ocr_ray.spaces import SearchSpace
from ocr_ray.typed import to_plain, with_values
from ocr_ray.weights.architecture import outline
from ocr_ray.weights.load import SUB_MODELS, load_file, read_weights

PARAMETERS, LATENCY = "student.parameters", "student.latency_ms"
"""Keys of a trial's reports, and names of its metrics."""
DETECTOR = "student.detector."
LATENCY_FOLDER = "latency"
WARM_UPS, RUNS = 2, 10


def costs_of(cfg: RecipeConfig, sweep: Path) -> dict[str, float]:
    """Of the student of a trial of the sweep in that folder: its parameters, and its latency where hmean is weighed
    against something. Equal students of a sweep have one latency, that of the first that was measured."""
    detector, side = cfg.student.detector, cfg.sweep.latency_side
    costs: dict[str, float] = {PARAMETERS: count_parameters(detector)}
    if cfg.sweep.against is None:
        return costs
    plain = {"detector": to_plain(detector), "side": side}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
    record = sweep / LATENCY_FOLDER / f"{digest}.json"
    if not record.exists():
        write_text(record, json.dumps({**plain, "ms": measure_latency(detector, side)}, indent=1))
    return {**costs, LATENCY: float(json.loads(record.read_text())["ms"])}


def count_parameters(cfg: DetectorConfig) -> int:
    """Trainable numbers, the threshold branch of the head included."""
    return sum(parameter.numel() for parameter in outline(cfg).parameters())


def measure_latency(cfg: DetectorConfig, side: int) -> float:
    """Milliseconds of one CPU thread for the shrink map of one picture of `side` x `side` pixels, random weights.

    The thread's own time, and the least of ten runs, since other trials have the cores as well.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            net, picture = Detector(cfg).eval(), torch.randn(1, 3, side, side)
            times = []
            for _ in range(WARM_UPS + RUNS):
                began = time.thread_time()
                net.shrink_map(picture)
                times.append(time.thread_time() - began)
    finally:
        torch.set_num_threads(threads)
    return 1000 * min(times[WARM_UPS:])


def check_start_fits(cfg: RecipeConfig, space: SearchSpace) -> None:
    """Raises: ConfigError in one line when `space` varies the student's architecture and the students' file, which the
    config's own architecture takes, does not fit another one."""
    varied = [(key, d) for key, d in space.distributions if key in space.varied and key.startswith(DETECTOR)]
    if cfg.student.weights is None or not varied:
        return
    file = read_weights(Path(cfg.student.weights))
    taken = file.pick(cfg.student.model, ("Student", *SUB_MODELS))
    for key, distribution in varied:
        for value in ends(distribution):
            detector = with_values(cfg, {key: value}, space.source).student.detector
            try:
                load_file(outline(detector), file, "Student", taken, cfg.student.may_be_new, keys="student")
            except WeightsError as e:
                raise ConfigError(
                    f"{space.source}: {key}={value}: student.weights fit one architecture alone; leave them out "
                    f"(student.weights=null) or do not search {key}: {e}"
                ) from e
