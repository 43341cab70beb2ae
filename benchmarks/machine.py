"""What a table was measured on: processor, versions, command."""

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import cv2
import torch


def describe() -> str:
    """One line, e.g. `AMD EPYC, 2 cores; Python 3.11.9, torch 2.13.0, numpy 2.4.6, opencv 5.0.0`."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "shapely", "pyclipper", "ray"))
    return (
        f"{processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}, cv2 {cv2.__version__}"
    )


def processor() -> str:
    """The processor's name as the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def command() -> str:
    """What was typed."""
    return " ".join(["python -m benchmarks", *sys.argv[1:]])


def one_thread() -> None:
    """Keeps OpenCV and torch to the calling thread, whose CPU time is then all of theirs."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
