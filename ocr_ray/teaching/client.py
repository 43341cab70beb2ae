"""A worker's side: the answers to its batches, read from the store, and asked for ahead of the need."""

from collections.abc import Callable
from typing import Any

import ray
import torch
from torch import Tensor

from ocr_ray.data.batch import Batch
from ocr_ray.engine.teacher import Teacher
from ocr_ray.engine.teacher_store import BrokenPiece, Piece, TeacherStore, Turns

KEPT = 4
"""Pieces in memory: those that a batch may touch, and a few more."""


class SharedTeacher:
    """Gives a batch its teacher's answers.

    Args: desk is a `TeacherDesk`; trial is whose wishes these are; share is the part of a piece that this rank reads;
        last is the piece in which the run ends, past which nothing is asked for ahead; ahead is how many pieces to ask
        for beyond the one in use; alone builds a teacher in this process, for answers that could not be stored.
    """

    def __init__(
        self,
        desk: Any,
        trial: str,
        store: TeacherStore,
        turns: Turns,
        share: float,
        last: Piece,
        ahead: int,
        alone: Callable[[], Teacher],
    ) -> None:
        self._desk, self._trial, self._store, self._turns = desk, trial, store, turns
        self._share, self._last, self._ahead, self._alone = share, last, ahead, alone
        self._kept: dict[Piece, dict[int, Tensor] | None] = {}
        self._teacher: Teacher | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """As `Batch.teacher`. Waits for pieces that are not there yet."""
        answers: list[Tensor | None] = []
        for key in batch.keys:
            piece = self._answers_of(self._turns.piece_of(key))
            answers.append(None if piece is None else piece[key[1]])
        missing = [i for i, answer in enumerate(answers) if answer is None]
        if missing:
            if self._teacher is None:
                self._teacher = self._alone()
            for i, answer in zip(missing, self._teacher(batch.images[missing]), strict=True):
                answers[i] = answer
        return torch.stack([answer for answer in answers if answer is not None])

    def _answers_of(self, piece: Piece) -> dict[int, Tensor] | None:
        """A piece's answers by sample; None where there are none to be had."""
        if piece not in self._kept:
            self._ask_ahead(piece)
            while len(self._kept) >= KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[piece] = self._read(piece)
        return self._kept[piece]

    def _read(self, piece: Piece) -> dict[int, Tensor] | None:
        keys = self._turns.keys_of(piece)
        wanted = round(self._share * len(keys))
        broken = False
        for _ in range(2):
            if not ray.get(self._desk.ensure.remote(self._trial, piece, 0 if broken else wanted, broken)):
                return None
            try:
                found = self._store.read(piece, keys)
            except BrokenPiece:
                found = None
            if found is not None:
                return {index: answer for (_, index), answer in zip(keys, found, strict=True)}
            broken = True
        return None

    def _ask_ahead(self, piece: Piece) -> None:
        following = piece
        for _ in range(self._ahead):
            following = self._turns.after(following)
            if (following.turn, following.number) > (self._last.turn, self._last.number):
                return
            self._desk.prepare.remote(following)
