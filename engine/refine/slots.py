"""Which film is in which slot: a fixed number of slots, and the next film of the shard takes the place of one that has ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

Film = TypeVar("Film")


class Slots(Generic[Film]):
    """`count` places for films. Plain bookkeeping: what a film is, and why one ends, is the caller's business."""

    def __init__(self, count: int, queue: Iterator[Film]) -> None:
        """All slots are empty. Films are taken from `queue` only when a slot is free for them, so little lies waiting."""
        if count < 1:
            raise ValueError(f"refinement needs one slot or more: {count}")
        self._films: list[Film | None] = [None] * count
        self._queue = queue
        self._has_more = True

    def fill(self) -> list[tuple[int, Film]]:
        """Gives each empty slot the next film, the lowest slot first; returns the newcomers with their slots."""
        came: list[tuple[int, Film]] = []
        for slot, film in enumerate(self._films):
            if film is not None or not self._has_more:
                continue
            try:
                newcomer = next(self._queue)
            except StopIteration:
                self._has_more = False  # not asked again: some iterators would start anew
                break
            self._films[slot] = newcomer
            came.append((slot, newcomer))
        return came

    def busy(self) -> list[int]:
        """The slots that hold a film, in order."""
        return [slot for slot, film in enumerate(self._films) if film is not None]

    def release(self, slot: int) -> Film:
        """Empties a slot and returns the film that was in it."""
        film = self._films[slot]
        if film is None:
            raise ValueError(f"there is no film in slot: {slot}")
        self._films[slot] = None
        return film
