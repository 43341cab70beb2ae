"""Whether the order of trials at a rung is that of their end, and how it is said."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_ray.reports import append_report
from ocr_ray.search.history import ranks_of
from ocr_ray.search.ranks import Ranks, RungRank, hmean_by_epoch, rank_rungs
from ocr_ray.search.trial import OBJECTIVE, train_folder
from ocr_ray.search.trials import TrialBook

ORDER = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)


def histories(at_rung: tuple[float, ...], rung: int = 2, epochs: int = 6) -> list[dict[int, float]]:
    """Trials that stand at `at_rung` until epoch 4 and end in the order of their place."""
    return [
        {epoch: value if epoch <= 4 else 0.1 * (place + 1) for epoch in range(1, epochs + 1)}
        for place, value in enumerate(at_rung)
    ]


@pytest.mark.parametrize(
    ("at_rung", "tau"),
    [
        (ORDER, 1.0),
        (ORDER[::-1], -1.0),
        ((0.2, 0.1, 0.3, 0.4, 0.5, 0.6), 13 / 15),  # one of 15 pairs the other way
        ((0.2, 0.1, 0.4, 0.3, 0.6, 0.5), 9 / 15),
        ((0.0,) * 6, None),
        (ORDER[:4], None),
    ],
)
def test_tau_counts_pairs_that_keep_their_order(at_rung: tuple[float, ...], tau: float | None) -> None:
    (rung,) = rank_rungs(histories(at_rung), [2], 0).rungs
    assert rung.tau == (None if tau is None else pytest.approx(tau))


@given(st.permutations(ORDER))
def test_tau_is_by_order_alone_and_one_with_the_end_itself(at_rung: list[float]) -> None:
    first, last = rank_rungs(histories(tuple(at_rung)), [3, 6], 0).rungs
    (scaled,) = rank_rungs(histories(tuple(value**3 for value in at_rung)), [3], 0).rungs
    assert first.tau == pytest.approx(scaled.tau)
    assert last.tau == pytest.approx(1.0)


def test_a_rung_between_reports_takes_the_one_before_it() -> None:
    sparse = [{5: value, 10: value, 15: 1 - value} for value in ORDER]
    assert [rung.tau for rung in rank_rungs(sparse, [7, 14, 15], 0).rungs] == pytest.approx([-1.0, -1.0, 1.0])
    assert hmean_by_epoch([{"epoch": 3, "hmean.best": 0.5, "hmean": 0.4}]) == {3: 0.5}


def test_histories_are_read_from_the_trials_folders_and_only_of_those_that_finished(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    book = TrialBook(folder, {})
    for place, history in enumerate(histories(ORDER[::-1])):
        trial = book.start(f"t{place}", place + 1, {})
        book.change(dataclasses.replace(trial, end="stopped early" if place == 5 else "finished"))
        at = tmp_path / train_folder(folder.name, trial.trial_id)
        at.mkdir(parents=True)
        for epoch, hmean in history.items():
            append_report(at, {"epoch": epoch, OBJECTIVE: hmean})
    ranks = ranks_of(folder, book, (2,))
    assert (ranks.finished, ranks.stopped) == (5, 1)
    assert ranks.rungs[0].tau == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("ranks", "lines"),
    [
        (Ranks((), 9, 0), []),
        (
            Ranks((RungRank(2, None),), 2, 2),
            ["early stopping: 2 trials finished, too few to say whether it was safe"],
        ),
        (
            Ranks((RungRank(2, None),), 1, 0),
            ["early stopping: 1 trial finished, too few to say whether it would have been safe"],
        ),
        (
            Ranks((RungRank(2, None),), 8, 0),
            [
                "early stopping: 8 trials finished, and all reached the same: no order to say whether it would have "
                "been safe"
            ],
        ),
        (
            Ranks((RungRank(60, 0.72), RungRank(180, 0.914)), 7, 9),
            [
                "early stopping: rank correlation with the final hmean (Kendall's tau, 7 trials): "
                "0.72 at epoch 60, 0.91 at epoch 180"
            ],
        ),
        (
            Ranks((RungRank(60, 0.2), RungRank(180, 0.9)), 7, 9),
            [
                "early stopping: rank correlation with the final hmean (Kendall's tau, 7 trials): "
                "0.20 at epoch 60, 0.90 at epoch 180",
                "warning: stopping early was not safe: at epoch 60 only 60% of the pairs of trials stood in the order "
                "in which they ended; sweep.grace_epochs=180 is safer",
            ],
        ),
        (
            Ranks((RungRank(60, -0.5),), 7, 0),
            [
                "early stopping: rank correlation with the final hmean (Kendall's tau, 7 trials): -0.50 at epoch 60",
                "note: stopping early would not have been safe: at epoch 60 only 25% of the pairs of trials stood in "
                "the order in which they ended; sweep.scheduler=none is safer",
            ],
        ),
    ],
)
def test_it_is_said_plainly(ranks: Ranks, lines: list[str]) -> None:
    assert ranks.lines() == lines
    assert ranks.metrics() == {f"kendall_tau.epoch_{r.epoch}": r.tau for r in ranks.rungs if r.tau is not None}
