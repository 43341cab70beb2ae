"""When trials may share a teacher's answers, and the digest of all that makes an answer what it is."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from ocr_ray.config import CMLConfig
from ocr_ray.data.labels import Sample, data_digest
from ocr_ray.errors import WeightsError
from ocr_ray.session import threads_of_environment
from ocr_ray.typed import flatten
from ocr_ray.weights.load import weights_digest

INGREDIENTS = (
    *("data.train", "data.ratios", "data.mix", "data.root", "data.augment", "data.normalize", "data.on_device"),
    *("loss.distill.threshold", "run.seed", "run.precision", "run.channels_last", "run.threads"),
    *("teacher.detector", "teacher.weights", "teacher.model", "teacher.normalize", "teacher.batch_stats"),
)
"""Keys of a config that decide a teacher's answer to a sample. The batch's size is none of them."""
CHANGE_NOTHING = ("data.augment.copy_paste.cache_mib",)
"""Keys under those that do not."""
PACKAGES = ("ocr-ray", "torch", "numpy", "opencv-python")
"""Whose versions decide pixels or answers."""
FORMAT = 2
"""Of the store; another one is another digest."""


def why_not_shared(cfg: CMLConfig, varied: Iterable[str]) -> str | None:
    """Why trials that differ in the `varied` keys cannot share answers, in a few words; None where they can."""
    if cfg.teacher.batch_stats:
        return "teacher.batch_stats=true, so that an answer depends on the whole batch"
    for key in varied:
        if key not in CHANGE_NOTHING and any(
            key == ingredient or key.startswith(f"{ingredient}.") for ingredient in INGREDIENTS
        ):
            return f"{key} is searched, and with it the teacher's answers change"
    return None


def teacher_threads(cfg: CMLConfig) -> int:
    """CPU threads with which a worker of this config computes: they, too, decide an answer's last bits.

    As Ray gives them to a worker: what its user has set, else its share of whole cores.
    """
    return cfg.run.threads or threads_of_environment() or max(1, int(cfg.ray.cpus_per_worker or 1))


def answers_digest(cfg: CMLConfig, samples: Sequence[Sample], device: str, threads: int) -> str:
    """16 hexadecimal digits of the teacher, the pictures, how they are varied, and what computes.

    Args: samples are the training pictures; their files count by size and time of change, not by their bytes. device
        is the kind that computes, `cpu` or `cuda`, threads how many on a CPU.
    Raises: DataError, WeightsError where a file is not there.
    """
    flat = flatten(cfg)
    chosen = {k: v for k, v in flat.items() if any(k == i or k.startswith(f"{i}.") for i in INGREDIENTS)}
    for path in ("data.train", "data.root", "teacher.weights", "run.threads", *CHANGE_NOTHING):
        chosen.pop(path, None)  # their contents count, not where they lie
    assert cfg.teacher.weights is not None
    on_cpu = threads, torch.backends.cpu.get_cpu_capability()
    plain = {
        "format": FORMAT,
        "config": {key: str(value) for key, value in sorted(chosen.items())},
        "teacher": teacher_digest(Path(cfg.teacher.weights)),
        "labels": data_digest(samples),
        "pictures": _pictures_digest(samples),
        "computed": [device, *(on_cpu if device == "cpu" else ()), *(version(name) for name in PACKAGES)],
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def teacher_digest(path: Path) -> str:
    """Of a teacher's file or checkpoint, and of what runs it. Raises: WeightsError where it is not there."""
    if not path.exists():
        raise WeightsError(f"{path}: no such file")
    digest = weights_digest(path)
    return f"{digest} onnxruntime {version('onnxruntime')}" if path.suffix == ".onnx" else digest


def _pictures_digest(samples: Sequence[Sample]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        if sample.image.exists():  # one that is missing is replaced, and named, as in training
            stat = sample.image.stat()
            digest.update(f"{sample.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
