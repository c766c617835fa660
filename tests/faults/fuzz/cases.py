"""One case of the fuzz: a seed and a number name it for ever, and make the same bytes on any machine with these libraries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from pydicom import config

from tests.faults.fuzz.damage import ANY_FORMAT, splice
from tests.faults.fuzz.films import FORMATS, make_film
from tests.faults.fuzz.structure import BY_FORMAT

_SHARE_VALID = 0.06  # films left as they are: these must be read


@dataclass(frozen=True)
class Case:
    """A file with its name ("TIFF-7-123": format, seed, number), and how it was damaged ("valid": not at all)."""

    name: str
    format: str
    damage: str
    data: bytes


def make_case(seed: int, number: int) -> Case:
    """Case `number` of a seed. Formats take turns, so any stretch of numbers holds all of them."""
    random = np.random.default_rng([seed, number])
    kind = FORMATS[number % len(FORMATS)]
    with lenient():
        data = make_film(kind, random)
        damage = "valid"
        if random.random() >= _SHARE_VALID:
            data, damage = _damaged(kind, data, random)
    return Case(f"{kind}-{seed}-{number}", kind, damage, data)


def replay(name: str) -> Case:
    """The case that a name stands for."""
    _, seed, number = name.split("-")
    return make_case(int(seed), int(number))


def _damaged(kind: str, data: bytes, random: np.random.Generator) -> tuple[bytes, str]:
    choice = random.random()
    if choice < 0.05:
        other = FORMATS[int(random.integers(len(FORMATS)))] if random.random() < 0.5 else kind
        return splice(data, make_film(other, random), random), "splice"
    if choice < 0.55:
        how = BY_FORMAT[kind]
        for _ in range(2 if random.random() < 0.25 else 1):
            try:
                data = how(data, random)
            # What was damaged once need not have chunks, tags or elements any more; one more blind blow is as good.
            except Exception:
                data = ANY_FORMAT[0](data, random)
        return data, "structure"
    for _ in range(int(random.integers(1, 4))):
        data = ANY_FORMAT[int(random.integers(len(ANY_FORMAT)))](data, random) if data else data
    return data, "bytes"


@contextmanager
def lenient() -> Iterator[None]:
    """Lets pydicom write elements that no writer should."""
    before = config.settings.writing_validation_mode, config.settings.reading_validation_mode
    config.settings.writing_validation_mode = config.settings.reading_validation_mode = config.IGNORE
    try:
        yield
    finally:
        config.settings.writing_validation_mode, config.settings.reading_validation_mode = before
