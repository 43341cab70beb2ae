"""Which trials are trained again, with which seeds, how their runs become arms, and what is not trained again; the
training itself: tests/e2e."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from rich.console import Console

from ocr_ray.config import StudentConfig
from ocr_ray.confirm.candidates import Candidate, candidates_of, default_trial, fresh_seeds
from ocr_ray.confirm.decide import arms_of
from ocr_ray.confirm.runs import ConfirmRun, ConfirmRuns
from ocr_ray.engine.per_image import ImageCounts, write_per_image
from ocr_ray.progress import LiveFeed
from ocr_ray.reports import append_report
from ocr_ray.search.cost import CostEstimate
from ocr_ray.search.trials import TrialSummary
from ocr_ray.spaces import Scalar, space_from_plain
from ocr_ray.stopwatch import Stopwatch
from ocr_ray.tracking import Tracker
from ocr_ray.typed import with_values

OWN: dict[str, Scalar] = {"optim.lr": 0.01}


def trial(number: int, lr: float, hmean: float | None, best: str = "x", **more: Scalar) -> TrialSummary:
    return TrialSummary(number, str(number), {"optim.lr": lr, **more}, hmean=hmean, best=best)


def test_the_best_are_chosen_without_the_default_without_doubles_and_without_those_that_kept_nothing() -> None:
    trials = [
        trial(1, 0.01, 0.9),
        trial(2, 0.02, 0.5),
        trial(3, 0.03, 0.7),
        trial(4, 0.03, 0.6),
        trial(5, 0.05, 0.5),
        trial(6, 0.06, 0.8, best=""),
        trial(7, 0.07, None),
    ]
    assert [c.name for c in candidates_of(trials, OWN, 2)] == ["trial 3", "trial 2"]
    assert [c.key for c in candidates_of(trials, OWN, 9)] == ["trial-3", "trial-2", "trial-5"]
    assert candidates_of(trials, OWN, 9)[0].values == {"optim.lr": 0.03}
    assert candidates_of([], OWN, 3) == []


def test_a_searched_seed_is_no_difference_and_its_values_are_not_fresh() -> None:
    seeded = [trial(1, 0.02, 0.5, **{"run.seed": 2000}), trial(2, 0.02, 0.4, **{"run.seed": 1999})]
    (only,) = candidates_of(seeded, {**OWN, "run.seed": 1024}, 5)
    assert only.values == {"optim.lr": 0.02}
    cfg = with_values(StudentConfig(), {"sweep.seeds": 2}, "test")
    assert fresh_seeds(cfg, seeded) == [2001, 2002]
    assert fresh_seeds(cfg, [trial(1, 0.02, 0.5)]) == [1025, 1026]


def test_the_default_trial_is_that_of_the_configs_own_values() -> None:
    cfg = with_values(StudentConfig(), {"optim.lr": 0.01}, "test")
    space = space_from_plain({"optim.lr": {"uniform": [0.02, 0.1]}}, cfg, "space")  # the own one lies outside
    assert default_trial([trial(1, 0.02, 0.5)], space, cfg) is None
    assert default_trial([trial(1, 0.02, 0.5), trial(2, 0.01, 0.4)], space, cfg) == trial(2, 0.01, 0.4)
    assert default_trial([trial(2, 0.01, 0.4, best="")], space, cfg) is None
    heir = dataclasses.replace(trial(2, 0.01, 0.4), took_over="trial 1 at epoch 4")
    assert default_trial([heir, trial(3, 0.01, 0.3)], space, cfg) == trial(3, 0.01, 0.3)


def counts(*matched: int) -> list[ImageCounts]:
    return [ImageCounts(i, f"{i}.jpg", m, 2, 2) for i, m in enumerate(matched)]


def finished(storage: Path, run: ConfirmRun, epochs: int, *matched: int) -> None:
    best = storage / run.folder / "best"
    write_per_image(best / "per_image.json", counts(*matched), {})
    reached = {"hmean.best": 0.5, "keep.hmean.at_best": 0.25}
    append_report(storage / run.folder, {"epoch": epochs, "best_path": str(best / "student.safetensors"), **reached})


def test_runs_become_arms_with_the_same_pictures_and_a_failed_one_is_told(tmp_path: Path) -> None:
    cfg = with_values(StudentConfig(), {"optim.epochs": 3}, "test")
    one = Candidate("candidate", "trial-1", "trial 1", {"optim.lr": 0.1})
    lost = Candidate("candidate", "trial-2", "trial 2", {"optim.lr": 0.2})
    default = Candidate("default", "default", "default config", {})
    runs = [ConfirmRun(c, seed, cfg, f"s/confirm/{c.key}-{seed}") for seed in (5, 6) for c in (one, lost, default)]
    for run in runs:
        finished(tmp_path, run, 3, 1, 2, 0)
    finished(tmp_path, runs[0], 3, 2, 2)  # could not read the last picture
    assert all(run.last_report(tmp_path) is not None for run in runs)
    start = tmp_path / "start.safetensors", counts(0, 0, 1)
    arms = arms_of([one, lost, default], runs, {runs[4].folder: "loss is not finite"}, tmp_path, start)
    assert [(a.kind, a.name, a.counts.shape, a.reason) for a in arms] == [
        ("candidate", "trial 1", (2, 2, 3), ""),
        ("candidate", "trial 2", (0, 0, 3), "seed 6: loss is not finite"),
        ("default", "default config", (2, 2, 3), ""),
        ("start", "untouched start", (1, 2, 3), ""),
    ]
    np.testing.assert_array_equal(arms[0].counts[:, :, 0], [[2, 2], [1, 2]])
    assert arms[0].keep == (0.25, 0.25)
    assert arms[3].files == (start[0],)


def test_a_run_that_has_an_epoch_to_go_is_not_finished(tmp_path: Path) -> None:
    cfg = with_values(StudentConfig(), {"optim.epochs": 3}, "test")
    run = ConfirmRun(Candidate("default", "default", "default config", {}), 5, cfg, "s/confirm/default-seed-5")
    assert run.last_report(tmp_path) is None
    finished(tmp_path, run, 2, 1)
    assert run.last_report(tmp_path) is None
    finished(tmp_path, run, 3, 1)
    with (tmp_path / run.folder / "reports.jsonl").open("a") as cut:
        cut.write(json.dumps({"epoch": 3})[:-3])
    last = run.last_report(tmp_path)
    assert last is not None
    assert last["epoch"] == 3


def test_a_confirmation_of_which_all_is_done_is_taken_as_it_lies(tmp_path: Path) -> None:
    """Without Ray: no run of it is left for a cluster."""
    cfg = with_values(StudentConfig(), {"optim.epochs": 3, "sweep.seeds": 2, "ray.storage": str(tmp_path)}, "test")
    space = space_from_plain({"optim.lr": {"uniform": [0.02, 0.1]}}, cfg, "space")
    default = Candidate("default", "default", "default config", {})
    runs = [ConfirmRun(default, seed, cfg, f"s/confirm/default-seed-{seed}") for seed in (5, 6)]
    for run in runs:
        finished(tmp_path, run, 3, 1)

    def tracked() -> list[tuple[str, str, int]]:
        uri, ledger, said = f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "ledger.json", list[str]()
        with LiveFeed(Console(file=io.StringIO())) as live, Tracker(uri, "x", tmp_path / "a", ledger, said.append) as t:
            folder, estimate = tmp_path / "s", CostEstimate(cfg.sweep, 0, 1, 1, 0)
            its = ConfirmRuns(cfg, space, folder, live, t, t.run("s", "s"), Stopwatch(folder), estimate)
            assert its.train(runs, "confirm s") == {}
            assert live.plain_line(clock=False) == "confirm s, 2 of 2 ended, best hmean 0.5000"
        assert said == []
        client = MlflowClient(uri)
        found = client.search_runs([e.experiment_id for e in client.search_experiments()])
        its_own = [run for run in found if run.data.tags.get("end") == "finished"]
        assert len(found) == len(its_own) + 1
        return sorted((str(run.info.run_name), run.info.status, run.info.end_time) for run in its_own)

    first = tracked()  # as after a kill before MLflow had heard of any of them
    names = [f"confirm default config, seed {seed}" for seed in (5, 6)]
    assert [(name, status) for name, status, _ in first] == [(name, "FINISHED") for name in names]
    assert tracked() == first
