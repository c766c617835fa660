"""Random numbers as a function of seed, purpose and image number: nothing to save, the same for any number of processes."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, purpose: str, number: int) -> np.random.Generator:
    """NumPy's generator for one image of a run, or for one epoch of its order: independent of every other number, purpose and seed.

    Philox is a counter-based generator (Salmon et al. 2011), so any place of its stream is reached at once: the key holds seed and
    purpose, the highest word of the counter the number.
    """
    tag = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
    key = np.array([seed, tag], dtype=np.uint64)
    counter = np.array([0, 0, 0, number], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def normal(seed: int, purpose: str, numbers: range, *shape: int) -> Tensor:
    """Standard normal values [len(numbers), *shape] float32 on the CPU; row i depends on seed, purpose and numbers[i] alone."""
    rows = [generator(seed, purpose, number).standard_normal(shape, dtype=np.float32) for number in numbers]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, *shape)


def uniform(seed: int, purpose: str, numbers: range, *shape: int) -> Tensor:
    """Values [len(numbers), *shape] float32 in [0, 1) on the CPU; row i depends on seed, purpose and numbers[i] alone."""
    rows = [generator(seed, purpose, number).random(shape, dtype=np.float32) for number in numbers]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, *shape)


def step_seed(seed: int, purpose: str, number: int) -> int:
    """A seed for torch's own generator, for layers that draw from it (stochastic depth): set before each part of a step."""
    return int(generator(seed, purpose, number).integers(2**63))
