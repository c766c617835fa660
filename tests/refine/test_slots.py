"""Slots are a fixed number of places, filled lazily from a queue; plain Python, so nothing here needs a network."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.refine import slots as module
from engine.refine.slots import Slots


class Queue:
    """Films from a list, which counts how many were taken and how often it was asked after its end."""

    def __init__(self, films: str) -> None:
        self.left, self.taken, self.asked_in_vain = list(films), 0, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if not self.left:
            self.asked_in_vain += 1
            raise StopIteration
        self.taken += 1
        return self.left.pop(0)


def test_the_next_film_takes_the_place_of_one_that_has_ended() -> None:
    slots = Slots(3, queue := Queue("abcde"))
    assert slots.fill() == [(0, "a"), (1, "b"), (2, "c")]
    assert queue.taken == 3
    assert slots.release(1) == "b"
    assert slots.busy() == [0, 2]
    assert slots.fill() == [(1, "d")]
    assert slots.fill() == []  # nothing is free, so nothing is taken
    assert queue.taken == 4
    assert (slots.release(2), slots.release(0)) == ("c", "a")
    assert slots.fill() == [(0, "e")]
    assert slots.busy() == [0, 1]


def test_an_exhausted_queue_is_asked_once_only() -> None:
    slots = Slots(2, queue := Queue("a"))
    for _ in range(3):
        slots.fill()
    slots.release(0)
    assert (slots.fill(), slots.busy(), queue.asked_in_vain) == ([], [], 1)


def test_an_error_of_the_queue_passes_through_and_loses_no_film() -> None:
    def queue() -> Iterator[str]:
        yield "a"
        raise OSError("the disk")

    slots = Slots(2, queue())
    with pytest.raises(OSError, match="the disk"):
        slots.fill()
    assert slots.busy() == [0]


def test_an_empty_slot_has_no_film_to_release() -> None:
    slots = Slots(1, Queue("a"))
    with pytest.raises(ValueError, match="no film in slot: 0"):
        slots.release(0)


def test_there_is_one_slot_at_least() -> None:
    with pytest.raises(ValueError, match="one slot or more: 0"):
        Slots(0, Queue(""))


def test_the_policy_needs_no_torch() -> None:
    tree = ast.parse(Path(module.__file__).read_text())
    imports = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    imports += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert set(imports) == {"__future__", "collections.abc", "typing"}
