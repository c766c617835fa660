"""One thing that `verify` found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """`object` is a key in the store, or the plan's file name; `what` says what is wrong with it. A note does no harm to a reader."""

    object: str
    what: str
    is_note: bool = False

    def __str__(self) -> str:
        return f"{'note: ' if self.is_note else ''}{self.object}: {self.what}"
