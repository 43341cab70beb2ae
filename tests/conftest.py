"""Where the tests find what lies outside the project; where it is absent, those tests skip and say so."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ocr_ray.config import load_config
from ocr_ray.data.synth import SynthConfig, render_set
from ocr_ray.engine.checkpoint import RunState
from ocr_ray.engine.loop import fit
from ocr_ray.engine.optim import build_adam
from ocr_ray.recipes import build_model, build_training

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden vectors: OCR_RAY_GOLDEN, or ../shared/golden beside the project."""
    folder = Path(os.environ.get("OCR_RAY_GOLDEN", PROJECT.parent / "shared" / "golden"))
    if not folder.is_dir():
        pytest.skip(f"no golden vectors at {folder} (set OCR_RAY_GOLDEN)")
    return folder


@pytest.fixture(scope="session")
def salt(golden: Path) -> str:
    """What the vectors' deterministic weights hash in front of each key."""
    return str(json.loads((golden / "recipe.json").read_text())["salt"])


@pytest.fixture(scope="session")
def golden_file(golden: Path) -> Callable[[str], Path]:
    """One file that not every set of vectors holds; the test skips where it is absent."""

    def find(name: str) -> Path:
        if not (golden / name).exists():
            pytest.skip(f"{name} is not in {golden}")
        return golden / name

    return find


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of photographs with labels: OCR_RAY_DATA, or ../shared/data beside the project."""
    folder = Path(os.environ.get("OCR_RAY_DATA", PROJECT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no photographs at {folder} (set OCR_RAY_DATA)")
    return folder


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small rendered pictures, 12 to train on and 4 to validate on, with both label files."""
    folder = tmp_path_factory.mktemp("small") / "set"
    words = SynthConfig(train=12, val=4, width=128, height=128, min_words=1, max_words=3, max_text_height=32, curved=0)
    render_set(folder, words, seed=1)
    return folder


@pytest.fixture(scope="session")
def tiny(small_set: Path) -> list[str]:
    """What is typed behind `ocr-ray train` for a run of seconds on `small_set`: a recipe, and where its labels lie."""
    recipe = PROJECT / "tests" / "tiny_student.yaml"
    return [str(recipe), f"data.train={small_set}/train_label.txt", f"data.val={small_set}/val_label.txt"]


@pytest.fixture(scope="session")
def bare_losses(tiny: list[str]) -> list[float]:
    """Mean loss of each epoch of the `tiny` run in a plain loop: no Ray, no workers, nothing that disturbs it."""
    return losses_in_a_plain_loop(tiny)


@pytest.fixture(scope="session")
def many_bare_losses(tiny: list[str]) -> list[float]:
    """As `bare_losses`, of a run of 20 epochs: long enough that a kill in its middle comes before its end."""
    return losses_in_a_plain_loop([*tiny, "optim.epochs=20"])


def losses_in_a_plain_loop(typed: list[str]) -> list[float]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cfg = load_config(Path(typed[0]), typed[1:])
    training = build_training(cfg, build_model(cfg), torch.device("cpu"))
    losses: list[float] = []
    optimizer = build_adam(list(training.model.parameters()), cfg.optim)
    fit(training, optimizer, RunState(), lambda epoch: losses.append(epoch.metrics["loss.total"]))
    torch.set_num_threads(threads)
    return losses
