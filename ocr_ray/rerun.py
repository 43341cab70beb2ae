"""A run of MLflow's, trained again from its record: what differs now is said first, and what came out other, last."""

import contextlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocr_ray.config import RecipeConfig, load_config, override
from ocr_ray.errors import DataError, RunError
from ocr_ray.mlflow_store import store_uri
from ocr_ray.progress import LiveFeed
from ocr_ray.record import RECORD_FILE, Recorder, RunRecord, changed_code, changed_inputs, deciding
from ocr_ray.reports import read_reports
from ocr_ray.settings import ClusterConfig
from ocr_ray.tracked import TrackedRuns
from ocr_ray.tracking import DEVICE, TOOK_OVER
from ocr_ray.train import CONFIG_FILE, TrainResult, train
from ocr_ray.typed import flatten, with_values

LOSS = "loss.total"
RERUN_OF = "rerun_of"
"""Tag of the new run: the id of the old one."""
SEARCH_SPACE = "search_space"
"""Tag of a sweep's parent, which is no run of training."""


@dataclass(frozen=True)
class RerunResult:
    """What came out, and how it compares."""

    trained: TrainResult
    verdict: str
    """One line: whether the losses are those of the first time."""
    equal: bool
    """Whether they are, bit for bit, over all epochs that both runs have."""


def rerun(
    run_id: str,
    tracking: str | None = None,
    overrides: Sequence[str] = (),
    name: str | None = None,
    other_data: bool = False,
    live: LiveFeed | None = None,
) -> RerunResult:
    """Trains the run of that id again. On one worker, with nothing changed, it gets the same losses, bit for bit; a
    trial that its sweep ended early is trained to its end.

    Args: tracking is the store that knows it, by default that of a run here; overrides are `key=value`, e.g. where the
        data lie now; name is the new run's, by default of the old id and the time; other_data lets it train on data
        or weights that are not those of the first time.
    Raises: RunError when there is no such run, it is a sweep, or it went on from another's weights; DataError when data
        or weights are others; else as `train`.
    """
    uri = store_uri(tracking, Path(ClusterConfig().storage))
    runs = TrackedRuns(uri)
    run = runs.run(run_id)
    if SEARCH_SPACE in run.data.tags:
        wanted = run.data.tags.get("best_trial_id")
        best = [trial.info.run_id for trial in runs.children(run) if trial.data.tags.get("trial_id") == wanted]
        raise RunError(
            f"run {run_id} is a sweep, expected one of its trials" + (f", e.g. its best: {best[0]}" if best else "")
        )
    if TOOK_OVER in run.data.tags:
        raise RunError(
            f"run {run_id}: went on from the weights of {run.data.tags[TOOK_OVER]} (sweep.scheduler=pbt): its values "
            "are a schedule, which no single config trains again"
        )
    with tempfile.TemporaryDirectory() as folder:
        first = load_config(runs.download(run_id, CONFIG_FILE, Path(folder)))
        record = runs.download(run_id, RECORD_FILE, Path(folder))
        before = RunRecord.from_json(record.read_text(encoding="utf-8"), f"run {run_id}: {RECORD_FILE}")
    # data.test is for the winner of a search and its controls; no loser gets a look at it by being run again.
    cfg = override(with_values(first, {"tracking.uri": uri, "data.test": []}, "rerun"), overrides)
    now = Recorder().of(cfg)
    inputs = changed_inputs(deciding(before), deciding(now))
    if inputs and not other_data:
        raise DataError(f"run {run_id}: {'; '.join(inputs)}: --other-data trains on what is there now")
    changed = [*changed_keys(first, cfg), *changed_code(before, now), *inputs]
    with contextlib.ExitStack() as stack:
        live = live or stack.enter_context(LiveFeed())
        for line in changed or ["code, packages, data and weights are those of the first time"]:
            live.say(f"rerun: {line}")
        name = name or f"rerun-{run_id[:8]}-{time.strftime('%Y%m%d-%H%M%S')}"
        trained = train(cfg, name, live=live, tags={RERUN_OF: run_id})
    reports = read_reports(trained.folder)
    equal, verdict = compared(runs.history(run_id, LOSS), {int(r["epoch"]): float(r[LOSS]) for r in reports})
    then_on, now_on = run.data.tags.get(DEVICE), reports[-1].get(DEVICE)
    if not equal and then_on != now_on:
        verdict += f"; computed by {then_on} then, {now_on} now"
    return RerunResult(trained, verdict, equal)


def changed_keys(first: RecipeConfig, cfg: RecipeConfig) -> list[str]:
    """A line for each key of the config that is another than then; where MLflow writes is none of the training's."""
    before, now = flatten(first), flatten(cfg)
    keys = [key for key in dict.fromkeys([*before, *now]) if not key.startswith("tracking.") and key != "data.test"]
    return [f"{k}: {before.get(k)} then, {now.get(k)} now" for k in keys if before.get(k) != now.get(k)]


def compared(before: Mapping[int, float], now: Mapping[int, float]) -> tuple[bool, str]:
    """Losses by epoch of two runs: whether they are equal where both have one, and that in words."""
    both = sorted(before.keys() & now.keys())
    odd = [epoch for epoch in both if before[epoch] != now[epoch]]
    if not both:
        return False, "loss: no epoch to compare"
    if odd:
        epoch = odd[0]
        return False, f"loss: differs from epoch {epoch} on: {before[epoch]!r} then, {now[epoch]!r} now"
    return True, f"loss: equal to the first time's in {len(both)} epochs, bit for bit"
