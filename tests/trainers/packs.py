"""Small packs of films for the tests of what feeds a training."""

import csv
from pathlib import Path

import imagecodecs
import numpy as np

from engine.config import DecodeConfig
from engine.recipe import PixelRecipe
from trainers.packing import pack_films

SIDE = 16


def gray(seed: int, side: int = SIDE) -> np.ndarray:
    """A film of noise, u1 [side, side]."""
    return np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)


def write_films(folder: Path, count: int, side: int = SIDE) -> Path:
    """Films `film00.png` onwards; film k is `gray(k)`."""
    folder.mkdir()
    for seed in range(count):
        (folder / f"film{seed:02}.png").write_bytes(imagecodecs.png_encode(gray(seed, side)))
    return folder


def write_manifest(folder: Path, columns: dict[str, list], name: str = "films.csv") -> Path:
    """A manifest of the films of `folder` with these further columns, row k for film k."""
    with open(folder / name, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *columns])
        for row, cells in enumerate(zip(*columns.values(), strict=True)):
            writer.writerow([f"film{row:02}.png", *cells])
    return folder / name


def pack(source, out: Path, side: int = SIDE, **settings):
    """`pack_films` at a small size with one thread."""
    return pack_films(str(source), out, PixelRecipe(resolution=side), decode=DecodeConfig(threads=1), batch_size=4, **settings)
