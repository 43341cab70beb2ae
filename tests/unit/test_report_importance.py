"""Importance of knobs: what decides hmean is told from what does not, and noise is called noise."""

import math

import numpy as np
import pytest

from ocr_ray.report.contents import Scale, Sweep, Trial, knob
from ocr_ray.report.importance import LEAST_TRIALS, importance

SCALES = {
    "optim.lr": Scale("log", 1e-4, 1e-1),
    "loss.db.alpha": Scale("linear", 1, 10),
    "loss.db.main": Scale("choice", choices=("dice", "bce")),
    "data.batch_size": Scale("whole", 1, 8),
}


def sweep_of(count: int, decided: bool, noise: float = 0.01) -> Sweep:
    """Hmean peaks at a learning rate of 1e-2, or is noise alone."""
    rng = np.random.default_rng(1)
    trials = []
    for number in range(1, count + 1):
        values = {
            "optim.lr": float(10 ** rng.uniform(-4, -1)),
            "loss.db.alpha": float(rng.uniform(1, 10)),
            "loss.db.main": str(rng.choice(["dice", "bce"])),
            "data.batch_size": int(rng.integers(1, 9)),
        }
        hmean = 0.5 - decided * 0.1 * (math.log10(values["optim.lr"]) + 2) ** 2 + rng.normal(0, noise)
        trials.append(Trial(number, str(number), values, 9, float(hmean), "finished", "", 60.0))
    knobs = tuple(knob(key, scale, [t.values[key] for t in trials]) for key, scale in SCALES.items())
    return Sweep("made", __file__, {}, knobs, tuple(trials))  # type: ignore[arg-type]


def test_the_knob_that_decides_is_found_and_no_other() -> None:
    found = importance(sweep_of(30, decided=True))
    assert set(found.told) == {"optim.lr"}
    assert "fANOVA" in found.told["optim.lr"]
    assert found.shares[0].key == "optim.lr"
    for name in ("PED-ANOVA", "fANOVA"):
        shares = [s for s in found.shares if s.evaluator == name]
        assert len(shares) == len(SCALES)
        assert sum(s.value for s in shares) == pytest.approx(1)
        assert all(0 <= s.low <= s.high <= 1 and 0 <= s.chance <= 1 for s in shares)


def test_noise_is_called_noise() -> None:
    assert importance(sweep_of(24, decided=False)).told == {}


def test_the_same_sweep_gives_the_same_shares() -> None:
    assert importance(sweep_of(12, decided=True)) == importance(sweep_of(12, decided=True))


def test_where_it_cannot_be_told_it_says_why() -> None:
    few = importance(sweep_of(LEAST_TRIALS - 1, decided=True))
    assert few.why == "9 trials with an hmean are too few to tell: it takes 10"
    assert few.shares == ()
    level = sweep_of(12, decided=False, noise=0.0)
    assert importance(level).why == "all trials reached the same hmean"
    one = sweep_of(12, decided=True)
    assert importance(Sweep("one", one.folder, {}, one.knobs[:1], one.trials)).why == "a single knob takes all of it"


def test_knobs_that_only_some_trials_have_do_no_harm() -> None:
    sweep = sweep_of(20, decided=True)
    for trial in sweep.trials[::2]:
        del trial.values["loss.db.alpha"]  # type: ignore[attr-defined]
    found = importance(sweep)
    assert found.shares
    assert {s.key for s in found.shares} == set(SCALES)
