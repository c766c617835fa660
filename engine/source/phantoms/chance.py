"""Random numbers of one film: independent streams, so that a change to one part of the model leaves the others as they are."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence


class Stream(IntEnum):
    """What a stream decides. The numbers are part of what makes a film reproducible, so they never change meaning."""

    PATIENT = 0
    FINDINGS = 1
    VESSELS = 2
    TEXTURE = 3
    NOISE = 4
    EXPOSURE = 5
    BONES = 6
    DEVICES = 7
    MARKS = 8


def stream(seed: int, index: int, which: Stream) -> Generator:
    """The generator of one stream of film `index` of series `seed` (both 0 or more)."""
    return Generator(PCG64(SeedSequence([seed, index, int(which)])))


def between(rng: Generator, low: float, high: float) -> float:
    """A number drawn evenly between two."""
    return low + (high - low) * float(rng.random())


def about(rng: Generator, mean: float, spread: float) -> float:
    """A number near `mean`: normal with standard deviation `spread`, cut at 2.2 of them so that no body becomes impossible."""
    return mean + spread * float(np.clip(rng.standard_normal(), -2.2, 2.2))


def happens(rng: Generator, probability: float) -> bool:
    """True with the given probability. Always draws one number, so later draws do not depend on the probability."""
    return float(rng.random()) < probability
