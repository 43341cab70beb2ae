"""The live lines of the terminal: what runs, how far it is, what it reached, how long it still takes.

Runs send `ProgressEvent`s, from wherever they are; the driver hands them to one `LiveFeed`. On a terminal its lines
move by themselves, so that a slow start is seen to be one; elsewhere it prints a plain line now and then.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, get_args

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

Ended = Literal["done", "stopped early", "stopped by hand", "stopped by budget", "failed"]
Phase = Literal["starting", "new parts", "training", "evaluating", Ended]
ENDED = get_args(Ended)
SEEN_S = 2.0
"""Of training, before anything is said about how long it takes."""
HEARTBEAT_S = 20.0
"""Without a terminal, a line at least this often, even when nothing has changed."""


@dataclass(frozen=True)
class ProgressEvent:
    """A run's sign of life. `epoch` counts finished epochs; `step` of `steps` lies in the one under way."""

    run: str
    """How the run is called in front of people, e.g. `teacher` or `trial 3`."""
    phase: Phase = "training"
    stage: str = ""
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    loss: float | None = None
    """Of the last step; absent keeps the one before."""
    hmean: float | None = None
    """Of the last evaluation; absent keeps the one before."""

    @property
    def fraction(self) -> float:
        """Share of the run that is done, 0 to 1; parts that are trained before the first epoch do not count."""
        if self.phase in ENDED:
            return 1.0
        if not self.epochs or self.phase in ("starting", "new parts"):
            return 0.0
        return min(1.0, (self.epoch + (self.step / self.steps if self.steps else 0.0)) / self.epochs)


@dataclass(frozen=True)
class RunTiming:
    """What a run has taken, and what it takes by what was seen of it."""

    run: str
    seconds: float
    """From its start until now, or until its end."""
    ended: bool = False
    training_s: float | None = None
    """Of all its epochs, were it to run to its end; None before it has trained a little."""
    whole_s: float | None = None
    """The same with its start."""
    steps: int = 0
    """Of all its epochs; 0 before it has said so."""


Note = Callable[[list[RunTiming], float], str]
"""Words for the head of the live lines, from the runs of the stage and the seconds since its beginning."""


@dataclass
class _Run:
    """One line: the last event, when the run and its training began, and what was last heard of loss and hmean."""

    event: ProgressEvent
    since: float
    training_since: float | None = None
    heard: float = 0.0
    loss: float | None = None
    hmean: float | None = None
    best: float | None = None
    """Of all its evaluations."""
    first_fraction: float = 0.0
    ended: float | None = None
    training_s: float | None = None
    steps: int = 0

    def take(self, event: ProgressEvent, now: float) -> None:
        if event.phase == "training" and self.training_since is None:
            self.training_since, self.first_fraction = now, event.fraction
        self.event, self.heard = event, now
        self.loss = self.loss if event.loss is None else event.loss
        if event.hmean is not None:
            self.hmean, self.best = event.hmean, max(event.hmean, self.best or 0.0)
        if event.phase in ENDED:
            self.ended = now
            return
        if event.phase == "training" and event.steps:
            self.steps = event.steps * event.epochs
        done = event.fraction - self.first_fraction
        if self.training_since is not None and done > 0 and now - self.training_since >= SEEN_S:
            self.training_s = (now - self.training_since) / done

    def timing(self, now: float) -> RunTiming:
        whole = None
        if self.training_s is not None and self.training_since is not None:
            whole = self.training_since - self.since + self.training_s
        seconds = (now if self.ended is None else self.ended) - self.since
        return RunTiming(self.event.run, seconds, self.ended is not None, self.training_s, whole, self.steps)

    def seconds_left(self, now: float) -> float | None:
        done = self.event.fraction - self.first_fraction
        if self.training_since is None or done <= 0 or self.ended is not None:
            return None
        whole = (self.heard - self.training_since) * (1 - self.event.fraction) / done
        return max(0.0, whole - (now - self.heard))


class LiveFeed:
    """Shows runs while its `with` block lasts. `put`, `stage` and `say` may be called from any thread.

    Args: console defaults to standard error, since standard output belongs to results; plain_every_s is the least time
        between two plain lines where the console is no terminal.
    """

    def __init__(
        self,
        console: Console | None = None,
        plain_every_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console or Console(stderr=True)
        self._plain_every_s, self._clock = plain_every_s, clock
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._runs: dict[str, _Run] = {}
        self._stage, self._expected = "", 0
        self._note: Note | None = None
        self._since = clock()
        self._live: Live | None = None
        self._thread: threading.Thread | None = None
        self._printed, self._printed_at = "", float("-inf")

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        else:
            self._thread = threading.Thread(target=self._print_plain, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._live is not None:
            self._live.stop()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def stage(self, name: str, runs: int = 0) -> None:
        """Begins a stage, e.g. `sweep` of 4 `runs`; the lines of the one before are dropped."""
        with self._lock:
            self._stage, self._expected, self._note = name, runs, None
            self._since = self._clock()
            self._runs = {}

    def note(self, note: Note) -> None:
        """Adds words of its own to the head of the stage's lines, and goes on doing so."""
        with self._lock:
            self._note = note

    def timings(self) -> tuple[list[RunTiming], float]:
        """Of the stage's runs, and the seconds since it began."""
        now = self._clock()
        with self._lock:
            return [run.timing(now) for run in self._runs.values()], now - self._since

    def put(self, event: ProgressEvent) -> None:
        """Takes a run's news. A run that has ended is not brought back by events that arrive late."""
        now = self._clock()
        with self._lock:
            run = self._runs.get(event.run)
            if run is None:
                run = self._runs[event.run] = _Run(event, now)
            elif run.ended is not None and event.phase != "starting":
                return
            elif event.phase == "starting":
                run.ended = run.training_since = None
            run.take(event, now)

    def say(self, text: str) -> None:
        """A line that stays, above the moving ones."""
        # Not under our lock: the terminal's thread takes the console's lock first and ours inside it.
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def plain_line(self, clock: bool = True) -> str:
        """All that is shown, in one line: stage, what it reached, runs under way; without `clock` no times."""
        now = self._clock() if clock else None
        with self._lock:
            parts = [self._headline(), *(_describe(run, now) for run in self._runs.values() if run.ended is None)]
            line = "; ".join(parts)
            return line if now is None else f"{_clock(now - self._since)} {line}{self._stage_left(now)}"

    def _headline(self) -> str:
        ended = [run for run in self._runs.values() if run.ended is not None]
        words = [self._stage or "waiting"]
        if self._expected > 1:
            words.append(f"{len(ended)} of {self._expected} ended")
        hmeans = [run.best for run in self._runs.values() if run.best is not None]
        if len(self._runs) > 1 and hmeans:
            words.append(f"best hmean {max(hmeans):.4f}")
        return ", ".join(words)

    def _stage_left(self, now: float) -> str:
        """For several runs: an upper bound, since a scheduler may end some of them early."""
        if self._note is not None:
            return self._note([run.timing(now) for run in self._runs.values()], now - self._since)
        if self._expected < 2:
            return ""
        done = sum(run.event.fraction for run in self._runs.values()) / self._expected
        if not 0.1 < done < 1:  # before that, the start of the first workers is most of what was seen
            return ""
        return f", at most {_clock((now - self._since) * (1 - done) / done)} left"

    def _render(self) -> RenderableType:
        now = self._clock()
        with self._lock:
            head = Text(f"{self._headline()}, {_clock(now - self._since)}{self._stage_left(now)}", style="bold")
            lines = Table.grid(padding=(0, 2))
            for run in self._runs.values():
                if run.ended is not None and self._expected > 1:
                    continue
                left = run.seconds_left(now)
                lines.add_row(
                    Text(f"  {run.event.run}"),
                    ProgressBar(total=1.0, completed=run.event.fraction, width=20),
                    Text(_where(run, now)),
                    Text("" if run.loss is None else f"loss {run.loss:.3f}"),
                    Text("" if run.hmean is None else f"hmean {run.hmean:.4f}"),
                    Text("" if left is None else f"{_clock(left)} left"),
                )
        return Group(head, lines)

    def _print_plain(self) -> None:
        while not self._stop.wait(min(0.5, self._plain_every_s)):
            now, content = self._clock(), self.plain_line(clock=False)
            quiet = now - self._printed_at
            if quiet < self._plain_every_s or (content == self._printed and quiet < HEARTBEAT_S):
                continue
            self._printed, self._printed_at = content, now
            self.say(self.plain_line())


def _describe(run: _Run, now: float | None) -> str:
    words = [f"{run.event.run}: {_where(run, now)}"]
    if run.loss is not None:
        words.append(f"loss {run.loss:.3f}")
    if run.hmean is not None:
        words.append(f"hmean {run.hmean:.4f}")
    return " ".join(words)


def _where(run: _Run, now: float | None) -> str:
    """`epoch 3/16 step 5/8`, or what the run does before its first epoch, with the seconds when `now` is given."""
    event = run.event
    if event.phase in ENDED:
        return event.phase
    if event.phase == "starting":
        return "starting workers" + ("" if now is None else f" ... {now - run.since:.0f} s")
    if event.phase == "new parts":
        return f"new parts step {event.step}/{event.steps}"
    if event.phase == "evaluating":
        return f"epoch {event.epoch}/{event.epochs} evaluating"
    step = f" step {event.step}/{event.steps}" if event.steps and event.epoch < event.epochs else ""
    return f"epoch {event.epoch}/{event.epochs}{step}"


def _clock(seconds: float) -> str:
    """`0:07`, `12:30`, `3:05:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
