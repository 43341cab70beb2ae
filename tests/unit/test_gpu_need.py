import pytest
import torch

from ocr_ray.config import CMLConfig, with_values
from ocr_ray.teaching.gpu_need import MOST_PER_GPU, gpu_share, training_step

GIB = 2**30


@pytest.mark.parametrize(
    ("used", "total", "free", "share"),
    [
        (10 * GIB, 80 * GIB, 1.0, 0.25),  # six would fit, four are the most
        (30 * GIB, 80 * GIB, 1.0, 0.5),
        (30 * GIB, 80 * GIB, 0.75, 0.75),  # two would need 0.925
        (12 * GIB, 40 * GIB, 0.75, 0.75),
        (2 * GIB, 16 * GIB, 0.75, 0.25),
        (90 * GIB, 80 * GIB, 0.75, 0.75),  # one at least: it says itself that it does not fit
    ],
)
def test_a_share_holds_the_step_and_leaves_no_gap(used: int, total: int, free: float, share: float) -> None:
    found = gpu_share(used, total, free)
    assert found == pytest.approx(share)
    fitting = int(free / found + 1e-9)
    assert 1 <= fitting <= MOST_PER_GPU
    assert fitting == 1 or fitting * (1.2 * used + GIB) <= free * total


def test_the_step_that_is_measured_is_one_that_runs() -> None:
    small = {"data.batch_size": 2, "data.augment.crop_width": 64, "data.augment.crop_height": 64}
    training_step(with_values(CMLConfig(), small, "test"), torch.device("cpu"))
