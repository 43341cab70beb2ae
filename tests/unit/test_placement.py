"""How many trials fit, counted without a cluster."""

import pytest

from ocr_ray.search.placement import trials_at_once


@pytest.mark.parametrize(
    ("num_workers", "per_worker", "nodes", "expected"),
    [
        (1, {"CPU": 1.0}, [{"CPU": 2.0}], 1),  # the trial's own process takes the room of the second
        (1, {"CPU": 0.99}, [{"CPU": 2.0}], 2),
        (2, {"CPU": 0.5}, [{"CPU": 2.0}], 1),
        (2, {"CPU": 0.45}, [{"CPU": 2.0}], 2),
        (1, {"CPU": 1.0}, [{"CPU": 1.0}], 0),
        (2, {"CPU": 1.0}, [{"CPU": 1.5}, {"CPU": 1.5}], 1),  # a trial may span nodes
        (1, {"CPU": 2.0}, [{"CPU": 1.5}, {"CPU": 1.5}], 0),  # a worker may not
        (1, {"CPU": 1.0, "GPU": 1.0}, [{"CPU": 16.0, "GPU": 2.0}], 2),
        (1, {"CPU": 1.0, "GPU": 0.5}, [{"CPU": 16.0, "GPU": 2.0}], 4),
        (4, {"CPU": 1.0, "GPU": 1.0}, [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 16.0, "GPU": 2.0}], 1),
        (1, {"CPU": 1.0, "GPU": 1.0}, [{"CPU": 16.0}], 0),
        (1, {"CPU": 8.0, "GPU": 1.0}, [{"CPU": 4.0}, {"CPU": 8.0, "GPU": 4.0}], 1),  # its process goes to the other
        (1, {"CPU": 0.1}, [{"CPU": 1.0}], 9),  # ten-thousandths: 9 · 0.11 = 0.99
        (1, {"CPU": 1.0}, [], 0),
    ],
)
def test_trials_at_once(
    num_workers: int, per_worker: dict[str, float], nodes: list[dict[str, float]], expected: int
) -> None:
    assert trials_at_once(num_workers, per_worker, nodes) == expected


@pytest.mark.parametrize(
    ("cards", "share", "beside", "trials"),
    [
        (3, 0.375, [0.25], 6),  # two on each card, one card with the producer as well
        (4, 0.75, [0.25], 4),  # not five: three quarters lie on one card
        (8, 0.1875, [0.25], 39),
        (1, 0.75, [0.25], 1),
        (2, 1.0, [0.25], 1),
        (2, 1.0, [1.0], 1),
        (1, 1.0, [0.25], 0),
    ],
)
def test_a_part_of_a_gpu_lies_on_one_card(cards: int, share: float, beside: list[float], trials: int) -> None:
    nodes = [{"CPU": 200.0, "GPU": float(cards)}]
    producers = [{"GPU": amount} for amount in beside]
    assert trials_at_once(1, {"CPU": 1.0, "GPU": share}, nodes, producers) == trials
