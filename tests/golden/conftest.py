"""The deterministic weights of the golden vectors."""

from collections.abc import Callable
from zlib import crc32

import numpy as np
import pytest
import torch
from torch import nn

from ocr_ray.weights.keymap import to_paddle

SUB_MODELS = ("Student.", "Student2.", "Teacher.")


@pytest.fixture(scope="session")
def reference_name() -> Callable[[str], str]:
    """Our name of a state entry to the reference's, a sub-model's prefix included."""

    def name_there(name: str) -> str:
        prefix = next((p for p in SUB_MODELS if name.startswith(p)), "")
        return prefix + to_paddle(name.removeprefix(prefix))

    return name_there


@pytest.fixture(scope="session")
def fill_by_recipe(salt: str, reference_name: Callable[[str], str]) -> Callable[[nn.Module], None]:
    """Puts the vectors' weights into a module: each array drawn from a seed that is the hash of its name there."""

    def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
        n = np.random.RandomState(crc32((salt + name).encode())).standard_normal(shape)
        if name.endswith("._mean"):
            return 0.1 * n
        if name.endswith("._variance"):
            return 1 + 0.5 * abs(n)
        if len(shape) == 1:
            return 1 + 0.1 * n if name.endswith(".weight") else 0.1 * n
        return n * (1 / np.prod(shape[1:])) ** 0.5

    def fill(module: nn.Module) -> None:
        with torch.no_grad():
            for name, tensor in module.state_dict().items():
                tensor.copy_(torch.from_numpy(value(reference_name(name), tuple(tensor.shape)).astype(np.float32)))

    return fill
