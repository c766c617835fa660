"""Lowers a learning rate when a figure no longer improves: what it has seen is state, so that a resumed run goes on as it would have."""

from __future__ import annotations

from typing import Any


class Plateau:
    """`factor` is multiplied by `cut` each time `patience` judgements in a row have not beaten the best by `margin`, `most` times at most.

    `patience` 0: never. A figure that is not a number counts as no judgement.
    """

    def __init__(self, *, patience: int, cut: float = 0.1, margin: float = 0.0, most: int = 3) -> None:
        self._patience, self._cut, self._margin, self._most = patience, cut, margin, most
        self._best: float | None = None
        self._stale = self._cuts = 0

    @property
    def factor(self) -> float:
        """What the learning rate is multiplied by."""
        return self._cut**self._cuts

    @property
    def cuts(self) -> int:
        """How often it was lowered."""
        return self._cuts

    def judge(self, figure: float) -> None:
        """Takes one more figure, larger being better."""
        if figure != figure:  # NaN
            return
        if self._best is None or figure > self._best + self._margin:
            self._best, self._stale = figure, 0
            return
        self._stale += 1
        if self._patience and self._stale >= self._patience and self._cuts < self._most:
            self._cuts, self._stale = self._cuts + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """The best figure, the judgements since, and how often it has cut."""
        return {"best": self._best, "stale": self._stale, "cuts": self._cuts}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Puts them back."""
        self._best, self._stale, self._cuts = state["best"], state["stale"], state["cuts"]
