"""A folder of small films for tests that train: coarse random squares, which a generator can learn something of."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np


def write_films(folder: Path, count: int) -> str:
    """Writes `count` films of 64x64; returns the folder as a SOURCE."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 255, (8, 8), dtype=np.uint8)
        (folder / f"film{number:02}.png").write_bytes(imagecodecs.png_encode(np.kron(coarse, np.ones((8, 8), np.uint8))))
    return str(folder)
