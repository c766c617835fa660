"""Seconds by stage: where the time of a worker goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import TypeVar

Item = TypeVar("Item")


class StageClock:
    """Seconds of a worker's line of stages, one after another, and of the threads that work beside it.

    `seconds` are the line's own: together they are its wall time, and a stage that another one waits for is not counted in the latter,
    for stages pull from one another. "decode" in it is how long the line waited for pixels, and so stood idle. `threads` are what other
    threads were busy with meanwhile ("read", "decode"), added up over them: that can be more than the wall time, or hidden behind it.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.threads: dict[str, float] = {}
        self._within = 0.0  # seconds of the stages that ended inside the one that runs

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of a `with` block to a stage."""
        before, self._within = self._within, 0.0
        start = perf_counter()
        try:
            yield
        finally:
            whole = perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + whole - self._within
            self._within = before + whole

    def add_threads(self, seconds: Mapping[str, float]) -> None:
        """Adds what threads beside the line were busy with."""
        for name, spent in seconds.items():
            self.threads[name] = self.threads.get(name, 0.0) + spent

    def timed(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Passes `items` on, adding the time that each one kept us waiting to a stage."""
        iterator = iter(items)
        nothing = object()
        while True:
            with self.stage(name):
                item = next(iterator, nothing)
            if item is nothing:
                return
            yield item  # type: ignore[misc]  # it is no longer the mark for the end
