"""What a page about a sweep is made from: the sweep, its trials with their curves, its knobs, its confirmation."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeGuard, assert_never

from ocr_ray.confirming import Confirming
from ocr_ray.errors import ConfigError
from ocr_ray.search.ranks import Ranks, hmean_by_epoch, rank_rungs
from ocr_ray.search.stopping import Stopping, ended_by_rule, stopping
from ocr_ray.settings import SweepConfig
from ocr_ray.stopwatch import HOUR_S
from ocr_ray.typed import from_plain

Scalar = bool | int | float | str | None
KEPT = "keep.hmean.at_best"
"""Metric of a report: what the kept weights reach on the second validation set."""
LOG_FROM = 20.0
"""Where a knob's distribution is not known: largest value over smallest from which on its axis is logarithmic."""


@dataclass(frozen=True)
class Epoch:
    """One epoch of a trial, as its worker reported it."""

    number: int
    metrics: Mapping[str, float]
    values: Mapping[str, Scalar] = field(default_factory=dict)
    """In a population: what the knobs were in this epoch."""

    @property
    def hmean(self) -> float | None:
        """Of the evaluation after this epoch; None where there was none."""
        return self.metrics.get("hmean") if "precision" in self.metrics else None

    @property
    def best(self) -> float | None:
        """The highest up to here; None before the first evaluation."""
        best = self.metrics.get("hmean.best")
        return best if best is not None and math.isfinite(best) else None


@dataclass(frozen=True)
class ImageCounts:
    """What an evaluation counted on one picture of val."""

    index: int
    """Its place in the evaluated set, from 0."""
    name: str
    """As its label file has it."""
    matched: int
    ground_truth: int
    detected: int


@dataclass(frozen=True)
class Trial:
    """One trial, with its curve."""

    number: int
    trial_id: str
    values: Mapping[str, Scalar]
    epochs: int
    hmean: float | None
    end: str
    """`finished`, `stopped early`, `failed`, `running`, or what else the books say."""
    reason: str
    seconds: float
    curve: tuple[Epoch, ...] = ()
    weights: Path | None = None
    """Of its best epoch; None where there are none, or none any more."""
    per_image: tuple[ImageCounts, ...] = ()
    """Of those weights on val; empty where they were not kept."""
    device_hours: float | None = None
    """As it was measured; None where it was not."""
    parameters: float | None = None
    """Of its student."""
    latency_ms: float | None = None
    """Of its student, on one CPU thread; None where it was not measured."""
    took_over: str = ""
    """In a population: whose weights it went on from last; its values are then the last ones of a schedule."""

    @property
    def keep(self) -> float | None:
        """Hmean on `data.keep` of its kept weights; None where there is no such set."""
        return next((e.metrics[KEPT] for e in reversed(self.curve) if KEPT in e.metrics), None)

    @property
    def epoch_s(self) -> float | None:
        """Mean time of an epoch in seconds, evaluation included."""
        times = [e.metrics["time.epoch_s"] for e in self.curve if "time.epoch_s" in e.metrics]
        return sum(times) / len(times) if times else None

    @property
    def was_stopped(self) -> bool:
        """Whether it was ended before its last epoch, by whomever."""
        return self.stopped_by is not None

    @property
    def stopped_by(self) -> Literal["rule", "budget", "hand"] | None:
        """Who ended it before its last epoch; early stopping is the rule's alone."""
        if ended_by_rule(self.end, self.reason):
            return "rule"
        return {"stopped early": "budget", "stopped by hand": "hand"}.get(self.end)  # type: ignore[return-value]

    @property
    def ending(self) -> str:
        """Its end as people read it: that of the books, but for one that the budget ended."""
        return "stopped by the budget" if self.stopped_by == "budget" else self.end

    @property
    def name(self) -> str:
        """`trial 3`, as people see it."""
        return f"trial {self.number}"


@dataclass(frozen=True)
class Scale:
    """What a knob may take, and so the axis on which it is shown."""

    kind: Literal["log", "linear", "steps", "whole", "choice"]
    low: float = 0.0
    high: float = 0.0
    """Of all kinds but `choice`; of `whole` the largest that can be drawn."""
    step: float = 0.0
    """Of `steps`."""
    choices: tuple[Scalar, ...] = ()

    @property
    def text(self) -> str:
        """As a space file has it."""
        match self.kind:
            case "log":
                return f"{{loguniform: [{self.low:g}, {self.high:g}]}}"
            case "linear":
                return f"{{uniform: [{self.low:g}, {self.high:g}]}}"
            case "steps":
                return f"{{quniform: [{self.low:g}, {self.high:g}, {self.step:g}]}}"
            case "whole":
                return f"{{randint: [{self.low:g}, {self.high + 1:g}]}}"
            case "choice":
                return f"{{choice: {json.dumps(list(self.choices))}}}"
            case _:
                assert_never(self.kind)


@dataclass(frozen=True)
class Knob:
    """A key in which trials differ."""

    key: str
    scale: Scale
    """As the books have it, widened to what trials took: the control may lie outside the space."""
    values: tuple[Scalar, ...]
    """That trials took, without None."""
    space: str = ""
    """What it was drawn from, as a space file has it; empty where the books do not tell."""

    @property
    def is_choice(self) -> bool:
        """Whether its values have no order that an axis could show."""
        return self.scale.kind == "choice"

    @property
    def is_log(self) -> bool:
        """Whether its axis is logarithmic."""
        return self.scale.kind == "log"


def knob(key: str, drawn_from: Scale | None, values: Sequence[Scalar]) -> Knob:
    """The knob of these values. Where it is not known what they were drawn from, they tell it."""
    taken = tuple(v for v in values if v is not None)
    space = "" if drawn_from is None else drawn_from.text
    numbers = [float(v) for v in taken if is_number(v)]
    if (drawn_from is not None and drawn_from.kind == "choice") or len(numbers) < len(taken) or not taken:
        given = drawn_from.choices if drawn_from is not None else ()
        more = tuple(v for v in dict.fromkeys(taken) if v not in given)
        return Knob(key, Scale("choice", choices=(*given, *more)), taken, space)
    low, high = min(numbers), max(numbers)
    if drawn_from is None:
        is_log = low > 0 and high / low >= LOG_FROM
        return Knob(key, Scale("log" if is_log else "linear", low, high), taken)
    low, high = min(low, drawn_from.low), max(high, drawn_from.high)
    kind = drawn_from.kind if drawn_from.kind != "log" or low > 0 else "linear"
    return Knob(key, Scale(kind, low, high, drawn_from.step), taken, space)


@dataclass(frozen=True)
class Difference:
    """Mean hmean of one arm less that of a control, with the 95% interval over seeds and pictures."""

    control: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.4f} ({self.low:+.4f} to {self.high:+.4f}) on {self.control}"

    @property
    def is_gain(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low > 0


@dataclass(frozen=True)
class Arm:
    """One candidate or control, trained again with several seeds."""

    name: str
    """As people see it, e.g. `trial 3`."""
    hmeans: tuple[float, ...]
    """One for each seed; a single one for weights that nobody trained."""
    is_control: bool = False
    differences: tuple[Difference, ...] = ()
    is_trained: bool = True
    """False for the weights that training started from."""
    weights: Path | None = None
    """That stand for the arm, of its run with the median hmean; None where they are not there any more."""
    per_image: tuple[ImageCounts, ...] = ()
    """Of those weights on val; empty where they were not kept."""
    keep: float | None = None
    """Mean hmean on `data.keep`; None where there is no such set."""
    shipped: int = 0
    """Which of `hmeans` is that of the weights."""
    seed: int | None = None
    """Of the weights; None where nobody trained them, or it is not known."""

    @property
    def title(self) -> str:
        """Within a sentence: `trial 3`, `the default config`."""
        return f"the {self.name}" if self.is_control else self.name

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return sum(self.hmeans) / len(self.hmeans)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over the seeds; None for a single one."""
        if len(self.hmeans) < 2:
            return None
        return math.sqrt(sum((h - self.mean) ** 2 for h in self.hmeans) / (len(self.hmeans) - 1))


@dataclass(frozen=True)
class Confirmation:
    """The best trials and the controls, trained again with fresh seeds."""

    arms: tuple[Arm, ...]
    winner: str
    """Name of the arm that is the sweep's answer: a control where nothing beats it beyond noise."""
    device_hours: float = 0.0
    """That its runs took."""
    sentence: str = ""
    """What it said where it was made."""

    @property
    def answer(self) -> Arm | None:
        """The arm of that name."""
        return next((arm for arm in self.arms if arm.name == self.winner), None)

    @property
    def default(self) -> Arm | None:
        """The control of the config's own values; None where it failed."""
        return next((arm for arm in self.arms if arm.is_control and arm.is_trained), None)

    @property
    def seeds(self) -> int:
        """Of an arm."""
        return max(len(arm.hmeans) for arm in self.arms)


@dataclass(frozen=True)
class Answer:
    """What a sweep hands out: a trial's weights, or those of an arm of its confirmation."""

    name: str
    hmean: float | None
    """Of a confirmed one the mean over its seeds."""
    spread: float | None
    """Over these; None where there was one."""
    weights: Path | None
    """None where they are not there any more."""
    per_image: tuple[ImageCounts, ...]
    trial: Trial | None
    """Whose values they were trained with; None for weights that nobody trained, and where no trial had them."""
    arm: Arm | None = None
    """Of the confirmation; None where there was none, and the trial was trained once."""

    @property
    def figure(self) -> str:
        """Its hmean, and how often that was seen: `0.4416 ± 0.0035 (trial 3, mean of 2 seeds)`."""
        value = "–" if self.hmean is None else f"{self.hmean:.4f}"
        if self.arm is None:
            return f"{value} ({self.name}, trained once)"
        if not self.arm.is_trained:
            return f"{value} ({self.name})"
        seeds = len(self.arm.hmeans)
        spread = "" if self.spread is None else f" ± {self.spread:.4f}"
        return f"{value}{spread} ({self.name}, mean of {seeds} seed{'s' * (seeds != 1)})"


@dataclass(frozen=True)
class Sweep:
    """A sweep as it lies on disk."""

    name: str
    folder: Path
    config: Mapping[str, Any]
    """The whole config, flat: dotted key to value."""
    knobs: tuple[Knob, ...]
    trials: tuple[Trial, ...]
    start: Mapping[str, float] = field(default_factory=dict)
    """Before any training: `hmean.start` of the given weights, `hmean.Teacher`."""
    confirmation: Confirmation | None = None
    """None where nothing was trained again."""
    confirming: Confirming | None = None
    """Its runs as they stand; None where none was begun."""
    tested: tuple[tuple[str, float, int], ...] = ()
    """On the test set: whose weights, their hmean, and how many pictures; empty where there is none."""
    teacher_saved_s: float | None = None
    """Seconds that the shared teacher's answers spared the trials; None where each asked for itself, or had none."""

    @property
    def epochs(self) -> int:
        """Of a whole trial."""
        given = self.config.get("optim.epochs")
        return given if isinstance(given, int) else max((t.epochs for t in self.trials), default=0)

    @property
    def workers(self) -> int:
        """Of one trial."""
        given = self.config.get("ray.num_workers")
        return given if isinstance(given, int) else 1

    @property
    def compared(self) -> tuple[Trial, ...]:
        """Trials that reached an hmean; in the order of their numbers."""
        return tuple(t for t in self.trials if t.hmean is not None and t.epochs)

    @property
    def best(self) -> Trial | None:
        """The highest hmean on val; the earlier one of equals."""
        return max(self.compared, key=lambda t: (t.hmean or 0.0, -t.number), default=None)

    @property
    def winner(self) -> Trial | None:
        """The best trial; where there was a confirmation, the trial with the values of its answer, and none where that
        is the weights that training started from."""
        answer = self.confirmation.answer if self.confirmation is not None else None
        if answer is None:
            return self.best
        if answer.is_control:
            return self.control if answer.is_trained else None
        return next((t for t in self.trials if t.name == answer.name), self.best)

    @property
    def answer(self) -> Answer | None:
        """What is handed out; None where no trial reached an hmean."""
        answer = self.confirmation.answer if self.confirmation is not None else None
        winner = self.winner
        if answer is not None:
            return Answer(answer.name, answer.mean, answer.spread, answer.weights, answer.per_image, winner, answer)
        if winner is None:
            return None
        return Answer(winner.name, winner.hmean, None, winner.weights, winner.per_image, winner)

    @property
    def against(self) -> str | None:
        """What hmean is weighed against, in a sweep with two objectives: `parameters` or `latency`."""
        given = self.config.get("sweep.against")
        return given if given in ("parameters", "latency") else None

    def cost(self, trial: Trial) -> float | None:
        """The trial's value of the second objective."""
        return trial.latency_ms if self.against == "latency" else trial.parameters

    @property
    def pareto(self) -> tuple[Trial, ...]:
        """The trials of which no other has at least their hmean at no more cost; by cost. Empty with one objective."""
        if self.against is None:
            return ()
        found = [(self.cost(t) or 0.0, t.hmean or 0.0, t) for t in self.compared if self.cost(t) is not None]
        front = [
            (cost, t)
            for cost, hmean, t in found
            if not any(h >= hmean and c <= cost and (h, c) != (hmean, cost) for c, h, _ in found)
        ]
        return tuple(t for _, t in sorted(front, key=lambda f: (f[0], f[1].number)))

    @property
    def is_population(self) -> bool:
        """Whether trials took one another's weights over, with values that changed on the way."""
        return self.config.get("sweep.scheduler") == "pbt"

    @property
    def control(self) -> Trial | None:
        """The trial of the config's own values, where the sweep holds one."""
        for trial in self.trials:
            if (
                trial.values
                and not trial.took_over
                and all(same(self.config.get(key), value) for key, value in trial.values.items())
            ):
                return trial
        return None

    @property
    def running(self) -> int:
        """Trials without an end."""
        return sum(t.end == "running" for t in self.trials)

    def device_hours(self, trial: Trial) -> float:
        """What the trial took: as measured, else its time from start to end by its workers."""
        return trial.device_hours if trial.device_hours is not None else trial.seconds * self.workers / 3600

    @property
    def confirm_hours(self) -> float:
        """Device-hours that the runs of the confirmation took, also of one that has not ended."""
        if self.confirming is not None and self.confirming.seconds:
            return self.confirming.seconds * self.workers / HOUR_S
        return self.confirmation.device_hours if self.confirmation is not None else 0.0

    def saved_hours(self, trial: Trial) -> float:
        """What ending it before its last epoch left unspent, by the time that its own epochs took; in device-hours."""
        if not trial.was_stopped or trial.epoch_s is None:
            return 0.0
        return max(0, self.epochs - trial.epochs) * trial.epoch_s * self.workers / 3600

    @cached_property
    def rule(self) -> Stopping | None:
        """Under which trials were ended early, `auto` settled; None where the config does not tell, or not to us."""
        if "sweep.scheduler" not in self.config or not self.epochs:
            return None
        known = [f.name for f in fields(SweepConfig) if f"sweep.{f.name}" in self.config]
        try:
            given = from_plain(SweepConfig, {name: self.config[f"sweep.{name}"] for name in known}, self.name)
        except ConfigError:  # of another version
            return None
        every = self.config.get("eval.every_epochs")
        return stopping(given, self.epochs, every if isinstance(every, int) else 1)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which the order of trials is held against that of their end, as at the end of the sweep."""
        return self.rule.rungs if self.rule is not None else ()

    @cached_property
    def ranks(self) -> Ranks:
        """Whether early hmeans told how trials would end; what the terminal and MLflow say as well."""
        finished = [t.curve for t in self.trials if t.end == "finished" and t.curve]
        histories = [hmean_by_epoch({**e.metrics, "epoch": e.number} for e in curve) for curve in finished]
        return rank_rungs(histories, self.rungs, sum(t.stopped_by == "rule" for t in self.trials))


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is one; a boolean is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(one: Any, other: Any) -> bool:
    """Whether two values of a key are the same, however a number was written."""
    if is_number(one) and is_number(other):
        return math.isclose(one, other, rel_tol=1e-9)
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
