"""MLflow, written by one thread of the driver: workers never import it, and a server that is away stops nobody.

Every write is a record in a queue. The writer takes them in order; while the store does not answer it keeps the
record and those behind it and tries again. What it still has when the process ends is kept in a file beside the ledger,
and the next process with that ledger begins with it. (MLflow's own asynchronous logging gives a batch up after its
retries, and its HTTP retries would hold up the caller, which here is the loop that schedules trials.)
"""

import hashlib
import json
import math
import os
import queue
import shlex
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, assert_never

from ocr_ray.errors import ConfigError, UserError, in_one_line
from ocr_ray.files import write_text
from ocr_ray.mlflow_store import one_line_of, opened_alone, quiet_client, refused
from ocr_ray.unsent import UNSENT_FILE, Opening, Said, UnsentRun, read_unsent, write_unsent

if TYPE_CHECKING:
    from mlflow import MlflowClient

LEDGER_FILE = "mlflow_runs.json"
"""Which MLflow runs belong to a run's or sweep's folder."""
Status = Literal["FINISHED", "FAILED", "KILLED"]
PARENT_TAG = "mlflow.parentRunId"
STAGE_TAG = "stage"
"""Of the runs of a confirmation, which hang on the same parent as the trials."""
KEY_TAG = "ocr_ray.key"
"""Of a run: a digest of its ledger and its key there, by which it is found where its id was not noted any more."""
USED_CONFIG = "config"
"""Key of a report that holds, as JSON, the flat config which the worker built with."""
DEVICE = "device"
"""Key of a report, and a run's tag: what computed."""
TOOK_OVER = "took_over"
"""A run's tag: the trial whose weights it went on from last, and at which epoch; only in a population."""
IMAGES = "val.images"
"""Key of a report: files with what was found on pictures of val, which become the run's images."""
IMAGES_FOLDER = "images"
"""Where MLflow's pages look for a run's images by step."""
PARAMS_A_BATCH = 100
LONGEST_PARAM = 6000
LONGEST_WAIT_S = 30.0
PATIENCE_S = 300.0
"""How long one record may take at the end of a run while the store answers."""
AWAY_AT_END_S = 10.0
"""How long the end of a run waits for a store that is away at that moment."""


@dataclass
class TrackedRun:
    """One MLflow run. Its methods return at once; what they say is written in order."""

    key: str
    tracker: "Tracker" = field(repr=False)
    opening: Opening = field(repr=False)
    run_id: str | None = None
    """Known once the run has been created in the store."""
    status: Status | None = None
    ended_ms: int | None = None
    _step: int = field(default=-1, repr=False)
    _params_sent: bool = field(default=False, repr=False)
    _params_known: frozenset[str] = field(default=frozenset(), repr=False)

    def params(self, params: Mapping[str, Any]) -> None:
        """Flat, dotted names; a value is written as its text and, as in MLflow, never changed afterwards."""
        from mlflow.entities import Param

        items = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in params.items()]

        def write(client: "MlflowClient", run_id: str) -> None:
            missing = [item for item in items if item.key not in self._params_known]  # an earlier process wrote those
            for start in range(0, len(missing), PARAMS_A_BATCH):
                client.log_batch(run_id, params=missing[start : start + PARAMS_A_BATCH])

        self._write("parameters", write, Said("params", {"params": {item.key: item.value for item in items}}))

    def metrics(self, metrics: Mapping[str, float], step: int, at_ms: int | None = None) -> None:
        """Values at an epoch. Epochs up to the last one written are left out: a run that went back to a checkpoint
        says them again.

        Args: at_ms is when, since 1970; by default now.
        """
        from mlflow.entities import Metric

        now = at_ms or _now_ms()
        batch = [Metric(key, float(value), now, step) for key, value in metrics.items()]

        def write(client: "MlflowClient", run_id: str) -> None:
            if step > self._step:
                client.log_batch(run_id, metrics=batch)
                self._step = step

        said = Said("metrics", {"metrics": {m.key: m.value for m in batch}, "step": step, "at_ms": now})
        self._write("metrics", write, said)

    def back_to(self, step: int) -> None:
        """The run left its own way, and goes on another from that epoch on: what it then says is written as well."""

        def write(client: "MlflowClient", run_id: str) -> None:
            self._step = min(self._step, step)

        self._write("way back", write, Said("back_to", {"step": step}))

    def finals(self, metrics: Mapping[str, float], step: int = 0, at_ms: int | None = None) -> None:
        """Figures of the run as a whole, which belong to no epoch; written at that step whatever was written before.
        MLflow shows of each name the value of the highest step, and of one step the newest."""
        from mlflow.entities import Metric

        now = at_ms or _now_ms()
        batch = [Metric(key, float(value), now, step) for key, value in metrics.items()]
        said = Said("finals", {"metrics": {m.key: m.value for m in batch}, "step": step, "at_ms": now})
        self._write("figures", lambda client, run_id: client.log_batch(run_id, metrics=batch), said)

    def report(self, result: Mapping[str, Any]) -> None:
        """One epoch as a worker reports it: its numbers become metrics at step `epoch`, and with the first report the
        config that the worker really used becomes the run's parameters."""
        if not self._params_sent and isinstance(result.get(USED_CONFIG), str):
            self._params_sent = True
            self.params(json.loads(result[USED_CONFIG]))
            if DEVICE in result:
                self.tags({DEVICE: str(result[DEVICE])})
        if result.get(IMAGES):
            self.images([Path(path) for path in result[IMAGES]], int(result["epoch"]))
        numbers = {key: float(value) for key, value in result.items() if _is_number(value) and key != "epoch"}
        self.metrics(numbers, int(result["epoch"]))

    def tags(self, tags: Mapping[str, str]) -> None:
        """Replaces tags of these names."""
        from mlflow.entities import RunTag

        batch = [RunTag(key, value) for key, value in tags.items()]
        said = Said("tags", {"tags": dict(tags)})
        self._write("tags", lambda client, run_id: client.log_batch(run_id, tags=batch), said)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copies a file, or what a folder holds, into the run's artifacts; the file as it is when its turn comes."""

        def write(client: "MlflowClient", run_id: str) -> None:
            if path.is_dir():
                client.log_artifacts(run_id, str(path), folder)
            else:
                client.log_artifact(run_id, str(path), folder)

        self._write(f"artifact {path}", write, Said("artifact", {"path": str(path.absolute()), "folder": folder}))

    def images(self, paths: Sequence[Path], step: int) -> None:
        """Picture files of an epoch, whose names MLflow's pages know how to read; none of an epoch that was written."""
        from mlflow.entities import RunTag

        def write(client: "MlflowClient", run_id: str) -> None:
            if step <= self._step:
                return
            for path in paths:
                client.log_artifact(run_id, str(path), IMAGES_FOLDER)
            client.log_batch(run_id, tags=[RunTag("mlflow.loggedImages", "True")])  # else the pages do not look

        said = Said("images", {"paths": [str(path.absolute()) for path in paths], "step": step})
        self._write(f"images of epoch {step}", write, said)

    def text(self, text: str, name: str) -> None:
        """An artifact file `name` that holds `text`."""
        said = Said("text", {"text": text, "name": name})
        self._write(f"artifact {name}", lambda client, run_id: client.log_text(run_id, text, name), said)

    def end(self, status: Status, at_ms: int | None = None) -> None:
        """The run's final status; a second call changes nothing."""
        if self.status is None:
            self.status, self.ended_ms = status, at_ms or _now_ms()
            ended_ms = self.ended_ms
            self._write("status", lambda client, run_id: client.set_terminated(run_id, status, ended_ms), None)

    def again(self, said: Said) -> None:
        """What an earlier process said of the run and could not write."""
        given = said.given
        match said.by:
            case "params":
                self.params(given["params"])
            case "metrics":
                self.metrics(given["metrics"], given["step"], given["at_ms"])
            case "back_to":
                self.back_to(given["step"])
            case "finals":
                self.finals(given["metrics"], given["step"], given["at_ms"])
            case "tags":
                self.tags(given["tags"])
            case "artifact":
                self.artifact(Path(given["path"]), given["folder"])
            case "images":
                self.images([Path(path) for path in given["paths"]], given["step"])
            case "text":
                self.text(given["text"], given["name"])
            case _:
                assert_never(said.by)

    def _write(self, what: str, write: Callable[["MlflowClient", str], object], said: Said | None) -> None:
        def record(client: "MlflowClient") -> None:
            if self.run_id is not None:  # else its creation was refused, and said so
                write(client, self.run_id)

        self.tracker.put(f"{self.key}: {what}", record, self, said)


class _Record(NamedTuple):
    what: str
    write: "Callable[[MlflowClient], None]"
    run: TrackedRun | None
    said: Said | None
    """None of a run's start and of its end, which are kept with the run itself."""
    starts: bool


class Tracker:
    """The only writer of one experiment. Leaving its `with` block ends the runs that are still open: FINISHED, KILLED
    after an interrupt, FAILED after any other error.

    Args: uri of a database or server; experiment is created when it is missing; artifacts is the folder for files
        where the store is a database (a server knows its own); ledger is a file that maps the keys of runs to their
        ids, so that a later process goes on with them, and with what this one could not write; say takes lines for
        people.
    Raises: ConfigError when the store refuses: a wrong URI, a folder that cannot be written, a deleted experiment. A
        server that does not answer is none: it is waited for.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        artifacts: Path | None = None,
        ledger: Path | None = None,
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    ) -> None:
        self.uri, self.experiment = uri, experiment
        self._remote = uri.startswith(("http://", "https://"))
        self._artifacts, self._ledger, self._say = artifacts, ledger, say
        self._experiment_id: str | None = None
        self._runs: list[TrackedRun] = []
        ledger_before = self._read_ledger()
        self._resumed = ledger_before is not None
        self._ids: dict[str, str] = dict(ledger_before["runs"]) if ledger_before else {}
        self._id = str((ledger_before or {}).get("id", uuid.uuid4().hex))
        self._records: deque[_Record] = deque()
        """Those that are not written; the first one is under way."""
        self._turns: queue.SimpleQueue[bool] = queue.SimpleQueue()
        """True for each record, False for the end."""
        self._closing = threading.Event()
        self._deadline = math.inf
        self._away = False
        self._written = 0
        self._client = self._connect()
        self._begin_with_unsent()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close("FINISHED")
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            self.close("KILLED", wait_s=2.5)  # `ray job stop` leaves 3 s before it kills
        else:
            self.close("FAILED")

    def run(
        self,
        key: str,
        name: str,
        parent: TrackedRun | None = None,
        tags: Mapping[str, str] | None = None,
        unless_ended: bool = False,
        at_ms: int | None = None,
    ) -> TrackedRun:
        """Starts the run of that key, or goes on with the one that the ledger names.

        Args: key is unique in the ledger, e.g. a trial's id; name is what MLflow's pages show; with unless_ended what
            is said of a run that has its final status already is not written; at_ms is when, since 1970, by default
            now.
        """
        parent_key = parent.key if parent is not None else None
        run = TrackedRun(key, self, Opening(name, parent_key, dict(tags or {}), unless_ended, at_ms or _now_ms()))
        self._runs.append(run)

        def start(client: "MlflowClient") -> None:
            known = self._ids.get(key) or self._unnoted(client, key)
            if known is not None:
                if unless_ended and client.get_run(known).info.status in ("FINISHED", "FAILED"):
                    return
                client.update_run(known, status="RUNNING")
                run._step, run._params_known = _last_step(client, known), frozenset(client.get_run(known).data.params)
                run.run_id = known
                return
            parent_id = self._ids.get(parent_key) if parent_key is not None else None
            given = {**(tags or {}), **({PARENT_TAG: parent_id} if parent_id else {})}
            given[KEY_TAG] = self._mark(key)
            self._write_ledger()
            assert self._experiment_id is not None
            made = client.create_run(self._experiment_id, run.opening.at_ms, run_name=name, tags=given)
            run.run_id = made.info.run_id
            self._ids[key] = run.run_id
            self._write_ledger()

        self.put(f"{key}: start", start, run, starts=True)
        return run

    def put(
        self,
        what: str,
        write: Callable[["MlflowClient"], None],
        run: TrackedRun | None = None,
        said: Said | None = None,
        starts: bool = False,
    ) -> None:
        """Queues a write. May be called from any thread and from a signal's handler."""
        self._records.append(_Record(what, write, run, said, starts))
        self._turns.put(True)

    def end_open_runs(self, status: Status) -> None:
        """Gives every run that has no final status yet this one."""
        for run in self._runs:
            run.end(status)

    def close(self, status: Status = "FINISHED", wait_s: float = 30.0) -> None:
        """Ends open runs, waits for what is still to be written, and keeps what was not.

        A store that is away is waited for up to `wait_s`, as is one of whom it is not known; one that takes records,
        as long as it takes one within PATIENCE_S, for an upload may be large and the way long. An interrupt waits no
        longer than `wait_s` in any case.
        """
        if self._closing.is_set():
            return
        self.end_open_runs(status)
        self._turns.put(False)
        self._deadline = time.monotonic() + (min(wait_s, AWAY_AT_END_S) if self._away else wait_s)
        self._closing.set()
        self._thread.join(wait_s)
        while status != "KILLED" and self._thread.is_alive() and not self._away:
            self._say(f"tracking: {len(self._records)} records are still to be written to {self.uri}")
            before = self._written
            self._thread.join(PATIENCE_S)
            if self._written == before:
                break
        left = [record for record in self._records.copy() if record.run is not None]
        if left:
            self._say(f"tracking: {len(left)} records could not be written to {self.uri}{self._kept(left)}")

    @property
    def ui_line(self) -> str:
        """What to type, or to open, to look at the runs."""
        if self._remote:
            return f"{self.uri.rstrip('/')}/#/experiments/{self._experiment_id}"
        beside = Path(sys.executable).parent / "mlflow"
        command = Path(os.path.relpath(beside)) if beside.is_relative_to(Path.cwd()) else beside
        return f"{shlex.quote(str(command))} ui --backend-store-uri {shlex.quote(self.uri)}"

    def _connect(self) -> "MlflowClient":
        try:
            with opened_alone(self.uri):
                client = quiet_client(self.uri)
                self._experiment_id = self._find_experiment(client)
                return client
        except ConfigError:
            raise
        except Exception as e:
            if not self._remote or refused(e):
                raise ConfigError(f"tracking.uri: {self.uri}: {one_line_of(e)}") from e
            self._note_away(e)
            return quiet_client(self.uri)

    def _find_experiment(self, client: "MlflowClient") -> str:
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            where = None if self._remote or self._artifacts is None else self._artifacts.resolve().as_uri()
            try:
                return str(client.create_experiment(self.experiment, artifact_location=where))
            except Exception:  # another driver may have made it meanwhile
                found = client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise ConfigError(
                f"tracking.experiment: {self.experiment} was deleted in {self.uri}; restore it or take another name"
            )
        return str(found.experiment_id)

    def _work(self) -> None:
        while self._turns.get():
            record = self._records[0]
            if not self._write(record.what, record.write):
                return  # what follows must not be written without it: a resume takes a run with an end for whole
            self._records.popleft()

    def _write(self, what: str, write: Callable[["MlflowClient"], None]) -> bool:
        """Whether it is done with, written or refused; else the time is up."""
        wait_s = 1.0
        while True:
            try:
                if self._experiment_id is None:
                    self._experiment_id = self._find_experiment(self._client)
                write(self._client)
                self._written += 1
            except Exception as e:
                if refused(e):
                    self._say(f"tracking: {what} refused: {one_line_of(e)}")
                    return True
                self._note_away(e)
                if time.monotonic() > self._deadline:
                    return False
                if self._closing.is_set():
                    time.sleep(0.5)
                else:
                    self._closing.wait(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            else:
                if self._away:
                    self._say("tracking: the store answers again")
                    self._away = False
                return True

    def _begin_with_unsent(self) -> None:
        """Says first what an earlier process could not write, and then drops the file that kept it."""
        if self._ledger is None:
            return
        path = self._ledger.with_name(UNSENT_FILE)
        before = read_unsent(path, self.uri)
        for unsent in before:
            o = unsent.opening
            parent = TrackedRun(o.parent, self, o) if o.parent is not None else None  # its key is all that counts
            run = self.run(unsent.key, o.name, parent, o.tags, o.unless_ended, o.at_ms)
            for said in unsent.said:
                run.again(said)
            if unsent.status is not None:
                run.end(unsent.status, unsent.ended_ms)
        if before:
            self._say(f"tracking: what could not be written before is written now ({path.name})")
            self.put("unsent records", lambda client: path.unlink(missing_ok=True))

    def _kept(self, left: Sequence[_Record]) -> str:
        """Keeps the records beside the ledger. Returns: where, as the end of a sentence."""
        if self._ledger is None:
            return ""
        path, starting = self._ledger.with_name(UNSENT_FILE), [r.run for r in left if r.starts]
        runs = []
        for run in self._runs:
            records = [r for r in left if r.run is run]
            starts = any(run is s for s in starting)
            if not records or (run.run_id is None and not starts):  # nothing, or of a run that takes nothing
                continue
            opening = run.opening if starts else replace(run.opening, unless_ended=False)
            said = tuple(r.said for r in records if r.said is not None)
            runs.append(UnsentRun(run.key, opening, said, run.status, run.ended_ms))
        try:
            write_unsent(path, self.uri, runs)
        except (UserError, OSError) as e:
            return f", nor kept: {in_one_line(e)}"
        return f"; they are kept in {path}, and --resume writes them"

    def _note_away(self, error: Exception) -> None:
        if not self._away:
            self._say(
                f"tracking: {self.uri} does not answer, training goes on and it is tried again: {one_line_of(error)}"
            )
            self._away = True

    def _mark(self, key: str) -> str:
        return hashlib.sha256(f"{self._id}/{key}".encode()).hexdigest()[:32]  # a key may hold any sign

    def _unnoted(self, client: "MlflowClient", key: str) -> str | None:
        """The run that an earlier process made and was killed before it could note its id."""
        if not self._resumed:
            return None
        assert self._experiment_id is not None
        found = client.search_runs([self._experiment_id], f"tags.`{KEY_TAG}` = '{self._mark(key)}'", max_results=1)
        if not found:
            return None
        self._ids[key] = str(found[0].info.run_id)
        self._write_ledger()
        return self._ids[key]

    def _read_ledger(self) -> dict[str, Any] | None:
        if self._ledger is None or not self._ledger.exists():
            return None
        read = dict(json.loads(self._ledger.read_text()))
        return read if read["uri"] == self.uri else None  # ids of another store mean nothing here

    def _write_ledger(self) -> None:
        if self._ledger is not None:
            plain = {"uri": self.uri, "id": self._id, "runs": self._ids}
            write_text(self._ledger, json.dumps(plain, indent=2))


def _now_ms() -> int:
    return int(time.time() * 1000)


def _last_step(client: "MlflowClient", run_id: str) -> int:
    keys = client.get_run(run_id).data.metrics
    return max((m.step for key in keys for m in client.get_metric_history(run_id, key)), default=-1)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
