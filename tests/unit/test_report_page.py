"""The page as HTML: what it holds for each kind of sweep, what it leaves out, and that no name can do harm in it."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ocr_ray.cli import app
from ocr_ray.confirm import verdict as confirmed
from ocr_ray.confirming import AskedRun, write_asked
from ocr_ray.errors import RunError
from ocr_ray.evidence import Counts
from ocr_ray.report.at_end import report_at_end
from ocr_ray.report.compare import best_so_far, comparison_of, write_comparison
from ocr_ray.report.contents import Arm, Confirmation, Difference, ImageCounts, Sweep, Trial, knob
from ocr_ray.report.html import rendered
from ocr_ray.report.page import page_of, write_report
from ocr_ray.report.read import read_sweep
from ocr_ray.report.stopped import told_the_end
from ocr_ray.report.verdict import headline, tiles
from ocr_ray.reports import append_report

RECORDED = Path(__file__).resolve().parents[1] / "data" / "sweep"
EVIL = "</script><script>alert(1)</script><b onclick='x'>&amp;"


class Parsed(HTMLParser):
    """What a browser would see, as far as the tests ask."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.plots: list[str] = []
        self.figures: dict[str, Any] = {}
        self.scripts = 0
        self.links: list[str] = []
        self.pictures = 0
        self.text = ""
        self._data, self._silent = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.links += [given[key] for key in ("src", "href", "action") if key in given]
        self.sections += [given["id"]] if tag == "section" else []
        self.plots += [given["id"]] if given.get("class") == "plot" else []
        self.pictures += tag == "img"
        self.scripts += tag == "script"
        self._data = given.get("data-plot", "")
        self._silent = tag in ("script", "style")
        assert not [key for key in given if key.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        self._data, self._silent = "", False

    def handle_data(self, data: str) -> None:
        if self._data:
            self.figures[self._data] = json.loads(data)
        elif not self._silent:
            self.text += data


@pytest.fixture(scope="module")
def text() -> str:
    """The page of the whole sweep."""
    return rendered(page_of(read_sweep(RECORDED)))


@pytest.fixture(scope="module")
def whole(text: str) -> Parsed:
    return Parsed(text)


@pytest.fixture
def sweep() -> Sweep:
    """Its first trials, too few for importances, which take seconds."""
    sweep = read_sweep(RECORDED)
    return replace(sweep, trials=sweep.trials[:8])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same, on disk."""
    folder = Path(shutil.copytree(RECORDED, tmp_path / "words"))
    book = json.loads((folder / "trials.json").read_text())
    (folder / "trials.json").write_text(json.dumps({**book, "trials": book["trials"][:8]}))
    return folder


def parsed(sweep: Sweep) -> Parsed:
    return Parsed(rendered(page_of(sweep)))


def test_a_whole_sweep_has_every_part_that_it_has_data_for(whole: Parsed) -> None:
    page = whole
    assert page.sections == ["curves", "importance", "slices", "parallel", "cost", "trials", "pictures", "again"]
    slices = [f"plot-slice-{i}" for i in range(4)]
    expected = ["plot-learning-curves", "plot-importance", *slices, "plot-parallel-coordinates", "plot-cost"]
    assert page.plots == expected
    assert list(page.figures) == expected
    assert "The weights of trial" in page.text  # they were not recorded
    assert "ocr-ray train" in page.text


def test_every_axis_has_a_name(whole: Parsed) -> None:
    for name, figure in whole.figures.items():
        titles = {axis: figure["layout"][axis]["title"].get("text", "") for axis in ("xaxis", "yaxis")}
        named = {"plot-importance": ["xaxis"], "plot-parallel-coordinates": []}.get(name, ["xaxis", "yaxis"])
        assert all(titles[axis] for axis in named), name
    parallel = whole.figures["plot-parallel-coordinates"]["layout"]["xaxis"]["ticktext"]
    keys = ["optim.lr", "loss.db.beta", "loss.db.alpha", "loss.db.balance", "<b>hmean</b>"]
    assert [text.replace("<br>", "") for text in parallel] == keys


def test_the_axis_of_a_log_knob_is_logarithmic(whole: Parsed) -> None:
    kinds = [whole.figures[f"plot-slice-{i}"]["layout"]["xaxis"].get("type") for i in range(4)]
    assert kinds == ["log", "log", "linear", "linear"]


def test_the_curves_tell_ends_apart_and_mark_rungs(whole: Parsed) -> None:
    figure = whole.figures["plot-learning-curves"]
    names = {trace["name"] for trace in figure["data"]}
    assert names == {"finished", "stopped before its end", "the config's own values", "winner"}
    assert len(figure["data"]) == 12
    assert [a["text"] for a in figure["layout"]["annotations"]] == ["rung 3", "rung 6"]


def test_the_page_asks_no_network_and_has_one_copy_of_the_script(text: str, whole: Parsed) -> None:
    assert [link for link in whole.links if not link.startswith(("#", "data:"))] == []
    assert text.count("plotly.js v") == 1
    assert "default-src 'none'" in text
    assert len(text) < 6_000_000


def test_names_and_reasons_stay_text(sweep: Sweep, tmp_path: Path) -> None:
    trials = [replace(t, values={**t.values, EVIL: f"{EVIL}{t.number}"}) for t in sweep.trials]
    trials[2] = replace(trials[2], reason=EVIL, end="failed")
    evil = knob(EVIL, None, [t.values[EVIL] for t in trials])
    bad = replace(sweep, name=EVIL, trials=tuple(trials), knobs=(evil, *sweep.knobs))
    scripts = parsed(sweep).scripts
    for text in (rendered(page_of(bad)), rendered(comparison_of([bad, sweep]))):
        page = Parsed(text)
        assert "<script>alert" not in text
        assert "alert(1)" in page.text
        assert EVIL in page.text
        assert page.figures
    assert parsed(bad).scripts == scripts + 1  # one slice more
    told = json.dumps(parsed(bad).figures)
    assert "<script" not in told
    assert "<b onclick" not in told


def without_curve(sweep: Sweep, **changes: Any) -> Sweep:
    return replace(sweep, trials=tuple(replace(t, curve=(), weights=None, **changes) for t in sweep.trials))


def test_one_trial(sweep: Sweep) -> None:
    page = parsed(replace(sweep, trials=sweep.trials[:1]))
    assert "parallel" not in page.sections
    assert "slices" not in page.sections
    assert "No trial beat the config's own values" in page.text
    assert "1 trial with an hmean is too few to tell" in page.text


def test_nothing_evaluated_yet(sweep: Sweep) -> None:
    page = parsed(without_curve(sweep, hmean=None, epochs=0, end="running"))
    assert page.sections == ["cost", "trials", "again"]
    assert "No trial has been evaluated yet." in page.text
    assert "8 trials have no end yet" in page.text


def test_all_failed(sweep: Sweep) -> None:
    page = parsed(without_curve(sweep, hmean=None, epochs=0, end="failed", reason="worker 0: out of memory"))
    assert "No trial came through." in page.text
    assert "Trial 1: worker 0: out of memory" in page.text
    assert "reason" in page.text
    assert "curves" not in page.sections


def test_no_trial_and_nothing_else(sweep: Sweep) -> None:
    page = parsed(Sweep("bare", RECORDED / "nowhere", {}, (), ()))
    assert page.sections == []
    assert page.plots == []
    assert "No trial has started." in page.text
    assert page.scripts == 1  # no charts, so no library


def test_hmean_zero_everywhere(sweep: Sweep) -> None:
    assert headline(without_curve(sweep, hmean=0.0)).text == "No trial found any text on val."


def test_an_interrupted_sweep_says_so(sweep: Sweep) -> None:
    trials = (*sweep.trials[:-1], replace(sweep.trials[-1], end="running"))
    assert any("1 trial has no end yet" in line for line in headline(replace(sweep, trials=trials)).details)


def test_the_headline_names_winner_control_and_doubt(sweep: Sweep) -> None:
    said = headline(sweep)
    assert sweep.winner is not None
    assert sweep.control is not None
    assert said.text.startswith(f"Trial {sweep.winner.number} reached hmean {sweep.winner.hmean:.4f}, ")
    assert f"({sweep.control.hmean:.4f})" in said.text
    assert "Whether that is more than luck is not known" in said.details[-1]
    below = headline(replace(sweep, start={"hmean.start": 0.9}))
    assert below.tone == "warning"
    assert any("below the weights that training started from (0.9000); keep those" in line for line in below.details)


def with_rule(sweep: Sweep, **values: Any) -> Sweep:
    """The same under other settings of its early stopping."""
    return replace(sweep, config={**sweep.config, **{f"sweep.{key}": value for key, value in values.items()}})


def test_it_says_whether_the_rungs_told_the_end(sweep: Sweep) -> None:
    whole = read_sweep(RECORDED)
    assert [rung.epoch for rung in whole.ranks.rungs] == [3, 6]

    def as_good_as_its_number(t: Trial) -> Trial:
        curve = tuple(replace(e, metrics={**e.metrics, "hmean.best": 0.1 * t.number}) for e in t.curve)
        return replace(t, end="finished", hmean=0.1 * t.number, curve=curve)

    def turned_at_last(t: Trial) -> Trial:
        last = replace(t.curve[-1], number=8, metrics={**t.curve[-1].metrics, "hmean.best": 1 - 0.1 * t.number})
        return replace(t, curve=(*(e for e in t.curve if e.number < 8), last))

    def said(sweep: Sweep) -> str:
        prose = told_the_end(sweep)
        assert prose is not None
        assert prose.text in parsed(sweep).text
        return prose.text

    ordered = tuple(map(as_good_as_its_number, sweep.trials))
    for rule in ("asha", "auto", "median", "none"):
        same = with_rule(replace(sweep, trials=ordered), scheduler=rule)
        figures = "Kendall's tau, 8 trials): 1.00 at epoch 3, 1.00 at epoch 6."
        assert said(same).startswith(f"Early stopping: rank correlation with the final hmean ({figures}")
        turned = with_rule(replace(sweep, trials=tuple(map(turned_at_last, ordered))), scheduler=rule)
        assert "Note: stopping early would not have been safe: at epoch 3 only 0% of the pairs" in said(turned)
    few = replace(sweep, trials=ordered[:4])
    assert said(few) == "Early stopping: 4 trials finished, too few to say whether it would have been safe."
    assert told_the_end(with_rule(same, scheduler="pbt", searcher="random")) is None


@pytest.mark.parametrize(
    ("values", "head", "curves"),
    [
        (
            {"scheduler": "auto"},
            "median stopping from epoch 3 on (auto)",
            "From epoch 3 on each trial is held",
        ),
        (
            {"scheduler": "median"},
            "median stopping from epoch 3 on ·",
            "against the others' median (dotted lines: 3, 6).",
        ),
        (
            {"scheduler": "asha"},
            "asha keeping the best 1/2 at epoch 3, 6 ·",
            "are compared at epoch 3, 6 (dotted",
        ),
        (
            {"scheduler": "auto", "trials": 40},
            "asha keeping the best 1/2 at epoch 3, 6 (auto)",
            "at epoch 3, 6 (dotted lines). 2 of 8 were stopped early.",
        ),
        ({"scheduler": "none"}, "no early stopping ·", "No rule ended trials early;"),
        ({"scheduler": "auto", "grace_epochs": 8}, "no early stopping (auto)", "2 of 8 were stopped early."),
    ],
)
def test_the_rule_in_force_is_named_and_what_it_compared(
    sweep: Sweep, values: dict[str, Any], head: str, curves: str
) -> None:
    text = parsed(with_rule(sweep, **values)).text
    assert head in text
    assert curves in text
    assert "early stopping auto" not in text


def test_early_stopping_is_credited_with_what_its_rule_ended_alone(sweep: Sweep) -> None:
    stopped = [t for t in sweep.trials if t.was_stopped]
    assert len(stopped) == 2
    for scheduler in ("none", "asha"):
        by_hand = replace(stopped[0], end="stopped by hand", reason="asked for at 12:00")
        spent = replace(stopped[1], reason="sweep.max_hours=1 are spent")
        others = [t for t in sweep.trials if not t.was_stopped]
        changed = with_rule(replace(sweep, trials=(*others, by_hand, spent)), scheduler=scheduler)
        text = parsed(changed).text
        assert "less than without early stopping" not in text
        assert "That 1 of them was stopped by hand left about" in text
        assert "That 1 of them was stopped by the budget left about" in text
        assert "1 of 8 was stopped by the budget, 1 of 8 was stopped by hand." in text.lower()
        assert f"stopped by the budget at {spent.epochs}/8" in text
        assert "stopped early" not in text.replace("None of 8 were stopped early", "")
        assert changed.ranks.stopped == 0
    text = parsed(sweep).text
    assert "less than without early stopping" in text
    assert "That 2 of them were stopped early left about" in text


def test_a_population_shows_its_schedules_and_claims_nothing_of_single_values(folder: Path) -> None:
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(re.sub(r"scheduler: \w+", "scheduler: pbt", config))
    book = json.loads((folder / "trials.json").read_text())
    control, heir = book["trials"][0], book["trials"][5]
    heir |= {"took_over": "trial 1 at epoch 4", "values": control["values"]}
    (folder / "trials.json").write_text(json.dumps(book))
    for trial in book["trials"]:
        reports = folder / "train" / trial["trial_id"] / "reports.jsonl"
        lines = [json.loads(line) for line in reports.read_text().splitlines()]
        used = [{**trial["values"], "optim.lr": 1e-3 * line["epoch"]} for line in lines]
        told = [json.dumps({**line, "used_config": json.dumps(u)}) for line, u in zip(lines, used, strict=True)]
        reports.write_text("\n".join(told))
    sweep = read_sweep(folder)
    assert sweep.control is not None
    assert sweep.control.number == 1
    page = parsed(sweep)
    assert page.sections == ["curves", "schedules", "cost", "trials", "pictures", "again"]
    assert page.plots[1:5] == [f"plot-schedule-{i}" for i in range(4)]
    (winners,) = [t for t in page.figures["plot-schedule-0"]["data"] if t["name"] == "winner"]
    assert winners["y"] == pytest.approx([1e-3 * epoch for epoch in winners["x"]])
    assert "It went on from the weights of trial 1 at epoch 4" in page.text
    assert "population based training" in page.text
    assert "Train the winner again" not in page.text
    assert "sweep.confirm" not in page.text


def confirmation(low: float) -> Confirmation:
    over = Difference("default config", low + 0.01, low, low + 0.02)
    arms = (
        Arm("default config", (0.40, 0.42), is_control=True),
        Arm("trial 2", (0.42, 0.46), differences=(over,)),
    )
    return Confirmation(arms, "trial 2" if low > 0 else "default config")


def test_a_confirmed_winner_is_said_to_be_one_and_has_error_bars(sweep: Sweep) -> None:
    confirmed = replace(sweep, confirmation=confirmation(0.01))
    page = parsed(confirmed)
    assert page.sections[:2] == ["curves", "confirmation"]
    assert "Trial 2 is better beyond noise: hmean 0.4400, the mean of 2 fresh seeds." in page.text
    assert "0.0200 more than the default config (95% interval +0.0100 to +0.0300): beyond noise." in page.text
    means = page.figures["plot-confirmation"]["data"][1]
    assert means["error_x"]["array"] == pytest.approx([0.0282843, 0.0141421], rel=1e-4)
    interval = page.figures["plot-differences"]["data"][0]
    assert interval["error_x"]["arrayminus"] == pytest.approx([0.01])
    assert [tile.value for tile in tiles(confirmed)[:2]] == ["0.4400", "+0.0200"]


def test_a_confirmation_may_choose_another_trial_than_the_search(sweep: Sweep) -> None:
    other = replace(confirmation(0.01), winner="trial 2")
    assert sweep.winner is not None
    assert sweep.winner.number == 6
    assert replace(sweep, confirmation=other).winner is sweep.trials[1]
    assert replace(sweep, confirmation=confirmation(-0.015)).winner is sweep.control


def test_when_the_answer_is_the_start_it_is_what_the_page_hands_out(sweep: Sweep, folder: Path) -> None:
    start, again = (folder / name / "student.safetensors" for name in ("start/best", "confirm/default-seed-1/best"))
    for weights in (start, again):
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"weights")
    over = Difference("untouched start", -0.01, -0.02, 0.005)
    arms = (
        Arm("untouched start", (0.42,), is_control=True, is_trained=False, weights=start, keep=0.3),
        Arm("default config", (0.40, 0.42), is_control=True, differences=(over,), weights=again, keep=0.25),
    )
    confirmed = replace(sweep, confirmation=Confirmation(arms, "untouched start", 0.5))
    assert confirmed.winner is None
    answer = confirmed.answer
    assert answer is not None
    assert (answer.name, answer.hmean, answer.weights) == ("untouched start", 0.42, start)
    page = parsed(confirmed)
    assert f"ocr-ray eval {start}" in page.text
    assert "Train the winner again" not in page.text
    assert "hmean on keep" in page.text
    assert "0.3000" in page.text
    assert "30.0 min of it the confirmation" in page.text
    assert headline(confirmed).text == "Nothing beat the untouched start beyond noise: keep it, at hmean 0.4200."
    assert headline(confirmed).details[0] == "The best beside it, the default config, has 0.4100 over 2 fresh seeds."
    assert "The worst pictures of the untouched start" in page.text
    assert "The winner" not in page.text.replace("The winner is picked here", "")
    alone = replace(sweep, name="other")
    both = Parsed(rendered(comparison_of([confirmed, alone]))).text
    assert "Trained once, the best of its trials, which is partly luck: other." in both


def test_what_a_real_confirmation_found_is_read_and_shown(sweep: Sweep, folder: Path) -> None:
    """Ten pictures of ten words: first the candidate finds fewer of the hundred than the start, then far more."""

    def counts(*found: int) -> Counts:
        words = np.full(10, 10)
        each = [n // 10 + (np.arange(10) < n % 10) for n in found]
        return np.stack([np.stack([matched, words, words], axis=1) for matched in each])

    def files(*names: str) -> tuple[Path, ...]:
        made = tuple(folder / name / "best" / "student.safetensors" for name in names)
        for path in made:
            path.parent.mkdir(parents=True)
            path.write_bytes(b"weights")
        return made

    arms = [
        confirmed.Arm("candidate", "trial 2", counts(51, 49), files("confirm/2-7", "confirm/2-8")),
        confirmed.Arm("default", "default config", counts(30, 31), files("confirm/own-7", "confirm/own-8")),
        confirmed.Arm("start", "untouched start", counts(55), files("start"), (0.25,)),
    ]
    columns = {"index": [0], "name": ["a"], "matched": [1], "ground_truth": [2], "detected": [3]}
    (folder / "start_per_image.json").write_text(json.dumps(columns))
    found = confirmed.judge(arms, (7, 8))
    (folder / "confirmation.json").write_text(json.dumps(found.plain(folder, 0.25)))
    start = read_sweep(folder)
    assert start.confirmation is not None
    assert start.confirmation.sentence == found.sentence
    assert start.winner is None
    assert start.answer is not None
    assert start.answer.per_image == (ImageCounts(0, "a", 1, 2, 3),)
    assert start.answer.figure == "0.5500 (untouched start)"
    page = parsed(start)
    assert page.sections[:2] == ["curves", "confirmation"]
    assert page.figures["plot-confirmation"]["data"][1]["error_x"]["array"][0] > 0
    assert "Nothing beat the untouched start beyond noise: keep it, at hmean 0.5500." in page.text
    assert "The best candidate, trial 2, has 0.5000 over 2 fresh seeds." in page.text
    assert "The confirmation took 15.0 min more" in page.text
    assert "winner" not in {trace["name"] for trace in page.figures["plot-learning-curves"]["data"]}
    # A later one replaces it, and with it what the page hands out: the run of the seed in the middle.
    better = confirmed.judge([replace(arms[0], counts=counts(91, 90)), *arms[1:]], (7, 8))
    (folder / "confirmation.json").write_text(json.dumps(better.plain(folder, 0.25)))
    won = read_sweep(folder)
    assert won.winner is not None
    assert won.winner.number == 2
    page = parsed(won)
    assert "Trial 2 is better beyond noise: hmean 0.9050, the mean of 2 fresh seeds." in page.text
    assert f"ocr-ray eval {arms[0].files[1]}" in page.text
    assert re.search(r"Train trial 2 again\s*ocr-ray train .* run.seed=8", page.text)
    compared = Parsed(rendered(comparison_of([won, start, replace(sweep, name="alone")]))).text
    first = "words reached the highest hmean, 0.9050 ± 0.0071 (trial 2, mean of 2 seeds): "
    assert f"{first}0.3550 more than words, 0.5500 (untouched start)." in compared.replace(str(folder), "words")
    assert "which is partly luck: alone." in compared


def test_a_confirmation_under_way_is_said_and_costs(sweep: Sweep, folder: Path) -> None:
    runs = [AskedRun("trial-2-seed-7", "trial 2, seed 7", 3), AskedRun("default-seed-7", "default config, seed 7", 3)]
    write_asked(folder, runs)
    for run, epochs in zip(runs, (3, 1), strict=True):
        (folder / "confirm" / run.folder).mkdir()
        (folder / "confirm" / run.folder / "spent.json").write_text('{"seconds": 900}')
        append_report(folder / "confirm" / run.folder, {"epoch": epochs})
    told = "The confirmation runs, or was interrupted: 1 of 2 runs ended; default config, seed 7 at epoch 1 of 3."
    half = read_sweep(folder)
    assert half.confirm_hours == 0.5
    assert told in headline(half).details
    assert "sweep.confirm=3" not in "".join(headline(half).details)
    write_asked(folder, [runs[0], replace(runs[1], reason="out of memory")])
    done = read_sweep(folder)
    assert done.confirming is not None
    assert done.confirming.progress() == "2 of 2 runs ended, 1 of them failed"
    assert "sweep.confirm=3" in "".join(headline(done).details)


def test_a_second_objective_has_its_front(sweep: Sweep) -> None:
    costs = (9.0, 3.0, 2.0, 2.0, 5.0, 9.0, 6.0, 7.0)
    trials = tuple(replace(t, latency_ms=c, parameters=6e5) for t, c in zip(sweep.trials, costs, strict=True))
    two = replace(sweep, trials=trials, config={**sweep.config, "sweep.against": "latency"})
    assert [t.number for t in two.pareto] == [4, 2, 5, 7, 8, 6]
    page = parsed(two)
    assert page.sections[:2] == ["curves", "pareto"]
    front = page.figures["plot-pareto"]["data"][0]
    assert front["x"] == [2.0, 3.0, 5.0, 6.0, 7.0, 9.0]
    assert "the answer is a set of 6, the cheapest first: trial 4, 2, 5, 7, 8, 6." in page.text
    assert "latency, ms" in page.text
    assert "parameters" not in page.text  # all trials have as many
    assert "pareto" not in parsed(sweep).sections


def test_sets_beside_val_are_shown_when_they_are_there(sweep: Sweep, folder: Path) -> None:
    (folder / "test").mkdir()
    columns = {"index": [0, 1], "name": ["a", "b"], "matched": [1, 2], "ground_truth": [2, 2], "detected": [2, 4]}
    (folder / "test" / "x.json").write_text(json.dumps({"of": "trial 6", **columns}))
    reports = folder / "train" / sweep.trials[0].trial_id / "reports.jsonl"
    lines = [json.dumps({**json.loads(line), "keep.hmean.at_best": 0.321}) for line in reports.read_text().splitlines()]
    reports.write_text("\n".join(lines))
    found = read_sweep(folder)
    assert found.tested == (("trial 6", pytest.approx(0.6), 2),)
    assert found.trials[0].keep == 0.321
    page = parsed(found)
    assert "test" in page.sections
    assert "hmean on keep" in page.text
    assert "0.3210" in page.text


def test_when_nothing_beats_the_control_the_answer_is_the_control(sweep: Sweep) -> None:
    said = headline(replace(sweep, confirmation=confirmation(-0.015)))
    assert said.text == (
        "Nothing beat the default config beyond noise: keep it, at hmean 0.4100, the mean of 2 fresh seeds."
    )
    assert said.details[0] == "The best candidate, trial 2, has 0.4400 over 2 fresh seeds."
    assert "within noise" in said.details[1]


def test_the_best_so_far_ends_at_the_best_and_at_all_that_was_spent(sweep: Sweep) -> None:
    spent, best = best_so_far(sweep, "epochs")
    assert sweep.winner is not None
    assert best[-1] == sweep.winner.hmean
    assert best == sorted(best)
    assert spent == sorted(spent)
    assert spent[-1] == sum(t.epochs for t in sweep.trials)
    hours = best_so_far(sweep, "hours")[0]
    assert hours[-1] == pytest.approx(60 * sum(sweep.device_hours(t) for t in sweep.trials))


def test_a_comparison_shows_where_sweeps_differ(sweep: Sweep, tmp_path: Path) -> None:
    other = replace(
        sweep,
        name="longer",
        config={**sweep.config, "optim.epochs": 16, "ray.num_workers": 2},
        confirmation=confirmation(0.01),
    )
    page = Parsed(rendered(comparison_of([sweep, other])))
    assert page.sections == ["progress", "results", "confirmation", "spaces", "configs"]
    assert page.plots == ["plot-best-by-epochs", "plot-best-by-hours", "plot-confirmation"]
    assert "optim.epochs" in page.text
    assert "ray.num_workers" not in page.text
    assert "reached the highest hmean" in page.text
    unlike = replace(sweep, name="elsewhere", config={**sweep.config, "data.val": ["other.txt"]})
    assert "were not evaluated alike" in Parsed(rendered(comparison_of([sweep, unlike]))).text
    with pytest.raises(RunError, match="compare: expected at least two sweeps, found 1"):
        write_comparison([RECORDED], tmp_path / "c.html")


def test_the_files_are_written_where_they_are_asked_for(folder: Path, tmp_path: Path) -> None:
    assert write_report(folder) == folder / "report.html"
    assert "<h1>words</h1>" in (folder / "report.html").read_text()
    out = write_comparison([folder, RECORDED], tmp_path / "sub" / "both.html")
    assert "<h1>words · sweep</h1>" in out.read_text()


def test_the_commands_say_where_they_wrote(folder: Path, tmp_path: Path) -> None:
    for command in (["report", str(folder)], ["compare", str(folder), str(RECORDED)]):
        out = tmp_path / f"{command[0]}.html"
        said = CliRunner().invoke(app, [*command, "--out", str(out)])
        assert said.stdout.strip() == str(out)
        assert out.stat().st_size > 1_000_000


def test_at_the_end_of_a_sweep_nothing_that_goes_wrong_raises(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    assert report_at_end(tmp_path, said.append) is None
    (tmp_path / "trials.json").write_text('{"trials": [{}]}')
    assert report_at_end(tmp_path, said.append) is None
    assert len(said) == 2
    assert re.fullmatch(r"report: not written: .*; `ocr-ray report \S+` tries again", said[0])
    assert report_at_end(folder, said.append) == folder / "report.html"
    assert said[2] == f"report: {folder / 'report.html'}"
