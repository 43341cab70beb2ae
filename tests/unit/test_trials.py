"""A sweep's books: what survives on disk, which trial is the best, and how the table shows it."""

import dataclasses
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ocr_ray.distributions import Scalar
from ocr_ray.search.trials import TrialBook, TrialSummary, best_trial, pareto_set, trials_table


def test_the_books_come_back_as_they_were_written(tmp_path: Path) -> None:
    book = TrialBook(tmp_path, {"optim.lr": "LogUniform(0.001, 0.1)"})
    first = book.start("b", 1, {"optim.lr": 0.01})
    book.start("a", 2, {"optim.lr": 0.02})
    book.change(dataclasses.replace(first, epochs=3, hmean=0.5, best="b.safetensors", end="stopped early", seconds=2.5))
    read = TrialBook(tmp_path, {})
    assert read.load() == book.identity
    assert read.trials == book.trials
    assert [t.number for t in read.trials] == [1, 2]
    assert read.next_number() == 3


def test_a_trial_that_starts_again_keeps_what_it_has_reached(tmp_path: Path) -> None:
    book = TrialBook(tmp_path, {})
    first = book.start("a", 1, {"optim.lr": 0.01})
    book.change(
        dataclasses.replace(first, values={"optim.lr": 0.011}, epochs=3, hmean=0.5, end="failed", reason="lost")
    )
    again = book.start("a", 7, {"optim.lr": 0.01})
    assert again == TrialSummary(1, "a", {"optim.lr": 0.011}, 3, 0.5, "", "running", "")


@pytest.mark.parametrize(
    ("hmeans", "weights", "best"),
    [
        ([0.1, 0.5, 0.3], "xxx", 2),
        ([0.5, 0.5], "xx", 1),
        ([0.0, None], "x ", 1),
        ([0.9, 0.2], " x", 2),  # nothing was kept of the first
        ([None, None], "  ", None),
    ],
)
def test_the_best_has_weights_and_the_earlier_wins(hmeans: list[float | None], weights: str, best: int | None) -> None:
    trials = [
        TrialSummary(i + 1, str(i), hmean=hmean, best=weight.strip())
        for i, (hmean, weight) in enumerate(zip(hmeans, weights, strict=True))
    ]
    found = best_trial(trials)
    assert (found.number if found else None) == best


def test_the_table_has_a_row_a_trial_and_marks_the_best() -> None:
    trials = [
        TrialSummary(1, "a", {"optim.lr": 0.0123456, "loss.db.main": "bce"}, 4, 0.51234, "x", "finished", "", 61.6),
        TrialSummary(2, "b", {"optim.lr": 1e-5, "loss.db.main": "dice"}, 2, 0.1, "x", "stopped early", "", 30),
        TrialSummary(3, "c", {"optim.lr": 0.02}, 0, None, "", "failed", "loss is not finite", 9),
    ]
    text = io.StringIO()
    Console(file=text, width=160).print(trials_table(trials))
    *head, one, two, three = [line.split() for line in text.getvalue().splitlines()]
    assert head == [["loss."], ["optim.", "db."], ["trial", "lr", "main", "epochs", "hmean", "end", "seconds"]]
    assert one == ["1", "0.01235", "bce", "4", "0.5123", "*", "finished", "62"]
    assert two == ["2", "1e-05", "dice", "2", "0.1000", "stopped", "early", "30"]
    assert three == ["3", "0.02", "0", "failed:", "loss", "is", "not", "finite", "9"]


def test_a_table_of_long_keys_and_reasons_fits_a_terminal() -> None:
    values: dict[str, Scalar] = {"loss.distill.weight": 0.123456, "loss.dml.weight": 1.5, "optim.lr": 0.01}
    trials = [
        TrialSummary(1, "a", values, 100, 0.5, "x", "stopped early", "", 61),
        TrialSummary(2, "b", values, 0, None, "", "failed", "loss is not finite at step 2 " + "(total nan) " * 30, 9),
    ]
    text = io.StringIO()
    Console(file=text, width=100).print(trials_table(trials))
    lines = text.getvalue().splitlines()
    assert len(lines) <= 10
    assert any("0.1235" in line and "0.5000 *" in line for line in lines)


costed = st.builds(
    lambda number, hmean, parameters, best: TrialSummary(
        number, str(number), hmean=hmean, parameters=parameters, best="x" * best
    ),
    st.integers(1, 99),
    st.sampled_from([None, 0.0, 0.3, 0.5, 0.9]),
    st.sampled_from([None, 1, 2, 3]),
    st.booleans(),
)


@given(st.lists(costed, unique_by=lambda t: t.number))
def test_the_pareto_set_is_what_nothing_beats(trials: list[TrialSummary]) -> None:
    def beats(one: TrialSummary, other: TrialSummary) -> bool:
        assert one.hmean is not None
        assert one.parameters is not None
        assert other.hmean is not None
        assert other.parameters is not None
        better = one.hmean > other.hmean or one.parameters < other.parameters
        return better and one.hmean >= other.hmean and one.parameters <= other.parameters

    shown = [t for t in trials if t.hmean is not None and t.parameters is not None and t.best]
    front = pareto_set(trials, "parameters")
    assert {t.number for t in front} == {t.number for t in shown if not any(beats(u, t) for u in shown)}
    assert bool(front) == bool(shown)
    costs = [t.parameters or 0 for t in front]
    assert costs == sorted(costs)
    assert pareto_set(trials, "latency") == []  # nobody measured it
    if shown:
        assert max(front, key=lambda t: t.hmean or 0).hmean == max(t.hmean or 0 for t in shown)


def test_the_table_of_two_objectives_shows_costs_and_marks_the_set() -> None:
    trials = [
        TrialSummary(1, "a", {"k": 96}, 4, 0.5, "x", "finished", "", 61.6, parameters=603_418, latency_ms=133.71),
        TrialSummary(2, "b", {"k": 48}, 4, 0.4, "x", "finished", "", 30, parameters=463_798),
        TrialSummary(3, "c", {"k": 128}, 0, None, "", "failed", "loss is not finite", 9),
    ]
    text = io.StringIO()
    Console(file=text, width=160).print(trials_table(trials, pareto_set(trials, "parameters")))
    head, one, two, three = [line.split() for line in text.getvalue().splitlines()]
    assert head == ["trial", "k", "epochs", "hmean", "parameters", "latency", "ms", "Pareto", "end", "seconds"]
    assert one == ["1", "96", "4", "0.5000", "*", "603,418", "133.7", "+", "finished", "62"]
    assert two == ["2", "48", "4", "0.4000", "463,798", "+", "finished", "30"]
    assert three == ["3", "128", "0", "failed:", "loss", "is", "not", "finite", "9"]
