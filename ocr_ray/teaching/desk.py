"""The actor whom trials ask for answers: it sees to it that each piece is computed once, and that they fit the disk."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from ocr_ray.engine.teacher_store import PIECE, Piece, TeacherStore
from ocr_ray.teaching.producer import Made, TeacherProducer

LEAST_FREE = 2**30
"""Bytes of disk that the store leaves to others."""
BEFORE_ALL = -1
"""Where a trial stands that has not come to its first turn: at its start, or while new parts are trained."""


@dataclass(frozen=True)
class TeachingStats:
    """What a sweep's answers took and saved."""

    made: int = 0
    """Pictures that the teacher looked at."""
    read: int = 0
    """Answers that trials read."""
    live: int = 0
    """Answers that a trial had to compute itself, since they could not be stored, or were of another picture."""
    broken: int = 0
    """Pieces that could not be used and were computed again."""
    num_bytes: int = 0
    """Written, for the pictures in `made`."""
    seconds: float = 0.0
    """That the teacher took for the pictures in `made`."""
    reason: str = ""
    """Why a piece could not be stored: the first that was met."""

    def plus(self, later: "TeachingStats") -> "TeachingStats":
        """With what came after it."""
        names = [f.name for f in dataclasses.fields(self) if f.name != "reason"]
        added = {name: getattr(self, name) + getattr(later, name) for name in names}
        return TeachingStats(**added, reason=self.reason or later.reason)

    @classmethod
    def of_metrics(cls, metrics: Mapping[str, float]) -> "TeachingStats":
        """From what `metrics` gave; why pieces could not be stored it does not hold."""
        made = int(metrics["teacher.pictures"])
        return cls(
            made,
            int(metrics["teacher.answers_read"]),
            int(metrics["teacher.answers_live"]),
            int(metrics["teacher.pieces_broken"]),
            round(metrics["teacher.bytes_per_picture"] * made),
            metrics["teacher.computed_s"],
        )

    @property
    def hit_rate(self) -> float:
        """Share of the answers for which the teacher had nothing left to do."""
        return max(0.0, 1 - (self.made + self.live) / (self.read + self.live)) if self.read + self.live else 0.0

    @property
    def seconds_saved(self) -> float:
        """That the teacher would have taken had each trial asked it itself."""
        return max(0.0, self.read - self.made) * self.seconds / self.made if self.made else 0.0

    def metrics(self) -> dict[str, float]:
        """Names under which a sweep records them."""
        return {
            "teacher.pictures": self.made,
            "teacher.answers_read": self.read,
            "teacher.answers_live": self.live,
            "teacher.pieces_broken": self.broken,
            "teacher.bytes_per_picture": self.num_bytes / self.made if self.made else 0.0,
            "teacher.hit_rate": self.hit_rate,
            "teacher.computed_s": self.seconds,
            "teacher.saved_s": self.seconds_saved,
        }

    def one_line(self) -> str:
        """For a person."""
        if not self.read + self.live:
            return "teacher: its answers were not asked for"
        if not self.made + self.live:
            return f"teacher: had answered all {self.read} pictures before, and looked at none"
        line = (
            f"teacher: looked at {self.made} pictures in {self.seconds:.0f} s for {self.read} answers "
            f"(hit rate {self.hit_rate:.0%}), which saved about {self.seconds_saved:.0f} s of it"
        )
        if self.made:
            line += f"; {self.num_bytes / self.made:.0f} bytes a picture"
        if self.broken:
            line += f"; {self.broken} unusable pieces computed again"
        if self.live:
            why = (
                f", first of all since {self.reason}" if self.reason else ": their pictures were read otherwise before"
            )
            line += f"; {self.live} answers by trials themselves{why}"
        return line


Produce = Callable[[Piece], Awaitable[Made]]


class Desk:
    """Takes every trial's wishes, in one event loop.

    Args: producers compute and write a piece of the store, each one at a time; limit bounds the store in bytes; turns
        are those of the longest trial, beyond which lie the pictures that train new parts before the first; least_free
        is what it leaves of a disk.
    """

    def __init__(
        self, store: TeacherStore, producers: Sequence[Produce], limit: int, turns: int, least_free: int = LEAST_FREE
    ) -> None:
        self._store, self._limit, self._turns, self._least_free = store, limit, turns, least_free
        self._sizes = store.sizes()
        self._stats = TeachingStats()
        self._read_by: dict[str, int] = {}
        self._positions: dict[str, int] = {}
        self._ended: set[str] = set()
        self._making: dict[Piece, asyncio.Task[bool]] = {}
        self._idle: asyncio.Queue[Produce] = asyncio.Queue()
        for producer in producers:
            self._idle.put_nowait(producer)

    async def ensure(self, trial: str, piece: Piece, answers: int, broken: bool = False) -> bool:
        """Comes back when the piece is stored, however long that takes.

        Args: answers is how many of it the caller is going to read; broken says that it could not use what is there.
        Returns: False where it cannot be stored or computed; the caller then asks a teacher of its own.
        """
        if trial not in self._ended:  # a worker that is being ended may still ask
            self._positions[trial] = self._order(piece.turn)
        if broken:
            self._count(broken=1)
        held = await self._held(piece, broken)
        if held:
            self._count(read=answers)
            self._read_by[trial] = self._read_by.get(trial, 0) + answers
        return held

    async def prepare(self, piece: Piece) -> None:
        """Has a piece computed that is going to be asked for."""
        await self._held(piece, False)

    def computed_alone(self, answers: int) -> None:
        """A trial's teacher of its own has computed so many answers."""
        self._count(live=answers)

    def started(self, trial: str) -> None:
        """A trial that is going to need everything from the first turn on, or from where a checkpoint left it."""
        self._ended.discard(trial)
        self._positions[trial] = BEFORE_ALL

    def ended(self, trial: str) -> None:
        """A trial that needs nothing more."""
        self._ended.add(trial)
        self._positions.pop(trial, None)

    def stats(self) -> TeachingStats:
        """So far."""
        return self._stats

    def metrics_of(self, trial: str) -> dict[str, float]:
        """What a trial has read so far, and the seconds that its own teacher would have taken for it; without these
        where the teacher has looked at nothing yet, since all was answered by an earlier sweep."""
        read, stats = self._read_by.get(trial, 0), self._stats
        found: dict[str, float] = {"teacher.answers_read": read}
        return {**found, "teacher.saved_s": read * stats.seconds / stats.made} if stats.made else found

    def _order(self, turn: int) -> int:
        return turn if turn < self._turns else BEFORE_ALL

    async def _held(self, piece: Piece, broken: bool) -> bool:
        if piece not in self._making:
            try:
                if not broken and self._store.holds(piece):
                    return True
            except OSError as e:
                self._give_reason(e)
                return False
            self._making[piece] = asyncio.create_task(self._make(piece))
        return await asyncio.shield(self._making[piece])

    async def _make(self, piece: Piece) -> bool:
        try:
            if not self._room(piece):
                return False
            producer = await self._idle.get()
            try:
                made = await producer(piece)
            finally:
                self._idle.put_nowait(producer)
        except Exception as e:  # of pictures, a disk, a net, a process: the trial meets the same, or does without
            self._give_reason(e)
            return False
        finally:
            del self._making[piece]
        self._sizes[piece.turn] = self._sizes.get(piece.turn, 0) + made.num_bytes
        self._count(made=made.images, num_bytes=made.num_bytes, seconds=made.seconds)
        return True

    def _room(self, piece: Piece) -> bool:
        """Whether another piece may be written, if need be in the place of turns that no running trial needs."""
        each = self._stats.num_bytes / self._stats.made * PIECE if self._stats.made else 0
        needed = min(self._positions.values(), default=BEFORE_ALL)
        passed = sorted((turn for turn in self._sizes if self._order(turn) < needed), key=self._order)
        while (full := sum(self._sizes.values()) + each > self._limit) or self._disk_is_full():
            if not passed:
                what = "teacher.store_mib is reached" if full else "the disk is full"
                self._give_reason(f"{what}, and running trials need all that is stored")
                return False
            turn = passed.pop(0)
            del self._sizes[turn]
            self._store.remove_turn(turn)
        return True

    def _disk_is_full(self) -> bool:
        free = self._store.free_bytes()
        return free is not None and free < self._least_free

    def _give_reason(self, reason: Exception | str) -> None:
        if not self._stats.reason:
            lines = str(reason).strip().splitlines() or [type(reason).__name__]
            self._stats = dataclasses.replace(self._stats, reason=lines[-1][:200])

    def _count(self, **more: float) -> None:
        added = {name: getattr(self._stats, name) + value for name, value in more.items()}
        self._stats = dataclasses.replace(self._stats, **added)


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class TeacherDesk(Desk):
    """A `Desk` in a process of its own, with producers in theirs, which end with it.

    Args: config is a CML recipe as plain data; options are the resources of each producer, threads its CPU threads.
    """

    def __init__(
        self,
        config: dict[str, Any],
        place: str,
        digest: str,
        limit: int,
        turns: int,
        producers: int,
        options: dict[str, float],
        threads: int,
    ) -> None:
        actors = [
            TeacherProducer.options(**options).remote(config, place, digest, threads)  # type: ignore[attr-defined]
            for _ in range(producers)
        ]
        super().__init__(TeacherStore(place, digest), [actor.make.remote for actor in actors], limit, turns)
        self._actors = actors  # they live as long as somebody holds them
