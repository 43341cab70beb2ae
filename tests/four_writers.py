"""Four drivers that write to one tracking store at the same moment, and what has to be there afterwards."""

import subprocess
import sys
from pathlib import Path

from mlflow import MlflowClient

from ocr_ray.tracking import PARENT_TAG

NAMES = ("a", "b", "c", "d")
PROGRAM = """
import json, sys
from pathlib import Path
from ocr_ray.tracking import Tracker

folder, uri, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
(folder / f"{name}.jpg").write_bytes(b"picture of " + name.encode())
with Tracker(uri, "ocr_ray", folder / "files", folder / f"{name}.json") as tracker:
    parent = tracker.run("p", name)
    trials = [tracker.run(f"t{n}", f"{name} trial {n}", parent) for n in (1, 2, 3)]
    for epoch in range(1, 21):
        for n, trial in enumerate(trials):
            report = {"epoch": epoch, "hmean": epoch + n / 10, "config": json.dumps({"name": name, "optim.lr": n})}
            drawn = {"val.images": [str(folder / f"{name}.jpg")]} if epoch == 20 else {}
            trial.report({**report, **{f"loss.{part}": epoch / 7 for part in range(10)}, **drawn})
        parent.metrics({"hmean.best": epoch}, epoch)
    for n, trial in enumerate(trials):
        trial.tags({"stopped_early": str(n == 2).lower()})
        trial.end("FINISHED")
"""


def write_at_once(folder: Path, uri: str) -> list[str]:
    """Runs them to their end. Returns: what they said on standard error."""
    program = folder / "write.py"
    program.write_text(PROGRAM)
    commands = [[sys.executable, str(program), str(folder), uri, name] for name in NAMES]
    started = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for c in commands]
    outputs = [process.communicate(timeout=300) for process in started]
    lines = [line for _, errors in outputs for line in errors.splitlines()]
    assert [process.returncode for process in started] == [0] * len(NAMES), lines
    return lines


def nothing_is_lost(uri: str) -> None:
    """Every run, metric, parameter, tag and picture is in the store, once."""
    client = MlflowClient(uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "ocr_ray"]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert len(runs) == len(client.search_runs([experiment.experiment_id])) == 16
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for name in NAMES:
        history = client.get_metric_history(runs[name].info.run_id, "hmean.best")
        assert [(m.step, m.value) for m in history] == [(epoch, epoch) for epoch in range(1, 21)]
        for n in range(3):
            run = runs[f"{name} trial {n + 1}"]
            assert run.data.tags[PARENT_TAG] == runs[name].info.run_id
            assert run.data.params == {"name": name, "optim.lr": str(n)}
            assert run.data.tags["stopped_early"] == str(n == 2).lower()
            for metric, values in (
                ("hmean", [epoch + n / 10 for epoch in range(1, 21)]),
                ("loss.9", [epoch / 7 for epoch in range(1, 21)]),
            ):
                history = client.get_metric_history(run.info.run_id, metric)
                assert [(m.step, m.value) for m in history] == list(enumerate(values, start=1))
            (image,) = client.list_artifacts(run.info.run_id, "images")
            assert image.path == f"images/{name}.jpg"
