"""The learning rate of each step against the reference's traces."""

import json
import re
from pathlib import Path

import pytest

from ocr_ray.engine.optim import OptimConfig, learning_rate


def test_learning_rates(golden: Path) -> None:
    traces = json.loads((golden / "g_lr_schedule.json").read_text())
    assert traces
    for name, rates in traces.items():
        settings = re.fullmatch(r"epochs(\d+)_spe(\d+)_warm(\d+)", name)
        assert settings is not None, name
        epochs, steps_per_epoch, warmup = map(int, settings.groups())
        cfg = OptimConfig(lr=1e-3, epochs=epochs, warmup_epochs=warmup)
        ours = [learning_rate(step, steps_per_epoch, cfg) for step in range(len(rates))]
        assert ours == pytest.approx(rates, abs=1e-9, rel=0), name


def test_a_thousand_pictures_in_batches_of_eight() -> None:
    """Figures worked out by hand from the formula, of the two long recipes."""
    student, dml = OptimConfig(), OptimConfig(epochs=1200)
    assert [learning_rate(t, 125, student) for t in (0, 1, 125, 249, 250)] == pytest.approx(
        [0, 4e-6, 5e-4, 9.96e-4, 1e-3], abs=1e-12
    )
    assert learning_rate(75_000, 125, dml) == pytest.approx(5.026180e-4, rel=1e-6)
    assert learning_rate(149_999, 125, dml) == pytest.approx(6.9088e-9, rel=1e-3)
    assert learning_rate(31_250, 125, student) == pytest.approx(5.062830e-4, rel=1e-6)
    assert learning_rate(62_499, 125, student) == pytest.approx(3.9794e-8, rel=1e-3)
