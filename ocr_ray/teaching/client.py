"""A worker's side: the answers to its batches, read from the store, and asked for ahead of the need."""

from collections.abc import Callable

import torch
from torch import Tensor

from ocr_ray.data.compact import Loaded
from ocr_ray.data.on_device import pictures
from ocr_ray.engine.teacher import Teacher, fingerprints_on
from ocr_ray.engine.teacher_store import Answer, BrokenPiece, Piece, TeacherStore, Turns

KEPT = 4
"""Pieces in memory: those that a batch may touch, and a few more."""


class SharedTeacher:
    """Gives a batch its teacher's answers.

    An answer is taken for the very picture that it was given to: where the stored one is another (a file that could not
    be read at one time and could at another, a machine that decodes otherwise), the teacher is asked here.

    Args: ensure comes back when a piece is stored, with whether it is; it is told how many of its answers are going to
        be read, and whether the caller found the piece unusable. prepare has a piece made that is going to be asked
        for. tell_live counts answers that were computed here. share is the part of a piece that this rank reads; last
        is the piece in which the run ends, past which nothing is asked for ahead; ahead is how many pieces to ask for
        beyond the one in use; alone builds a teacher in this process; kind is that of the device that nets are on.
    """

    def __init__(
        self,
        ensure: Callable[[Piece, int, bool], bool],
        prepare: Callable[[Piece], object],
        tell_live: Callable[[int], object],
        store: TeacherStore,
        turns: Turns,
        share: float,
        last: Piece,
        ahead: int,
        alone: Callable[[], Teacher],
        kind: str = "cpu",
    ) -> None:
        self._ensure, self._prepare, self._tell_live = ensure, prepare, tell_live
        self._store, self._turns, self._share = store, turns, share
        self._last, self._ahead, self._alone, self._kind = last, ahead, alone, kind
        self._kept: dict[Piece, dict[int, Answer]] = {}
        self._teacher: Teacher | None = None

    def __call__(self, batch: Loaded) -> Tensor:
        """As `Batch.teacher`. Waits for pieces that are not there yet."""
        answers: list[Tensor | None] = []
        for key, picture in zip(batch.keys, fingerprints_on(batch, self._kind), strict=True):
            stored = self._answers_of(self._turns.piece_of(key)).get(key[1])
            answers.append(stored.bits if stored is not None and stored.picture == picture else None)
        missing = [i for i, answer in enumerate(answers) if answer is None]
        if missing:
            if self._teacher is None:
                self._teacher = self._alone()
            images = pictures(batch, self._teacher.device)[missing]
            for i, answer in zip(missing, self._teacher(images), strict=True):
                answers[i] = answer
            self._tell_live(len(missing))
        return torch.stack([answer for answer in answers if answer is not None])

    def _answers_of(self, piece: Piece) -> dict[int, Answer]:
        """A piece's answers by sample; none where it cannot be had."""
        if piece not in self._kept:
            self._ask_ahead(piece)
            while len(self._kept) >= KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[piece] = self._read(piece)
        return self._kept[piece]

    def _read(self, piece: Piece) -> dict[int, Answer]:
        keys = self._turns.keys_of(piece)
        wanted = round(self._share * len(keys))
        broken = False
        for _ in range(2):
            if not self._ensure(piece, 0 if broken else wanted, broken):
                return {}
            try:
                found = self._store.read(piece, keys)
            except BrokenPiece:
                found = None
            if found is not None:
                return {index: answer for (_, index), answer in zip(keys, found, strict=True)}
            broken = True
        return {}

    def _ask_ahead(self, piece: Piece) -> None:
        following = piece
        for _ in range(self._ahead):
            following = self._turns.after(following)
            if (following.turn, following.number) > (self._last.turn, self._last.number):
                return
            self._prepare(following)
