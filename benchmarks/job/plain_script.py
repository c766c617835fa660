"""Films to codes as people write it, a script on its own: a Dataset, a DataLoader with workers, an eager network, one file of tensors.

python -m benchmarks.job.plain_script FILMS.csv CODEC_DIRECTORY CODES.pt
"""

from __future__ import annotations

import copy
import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from engine.encode.codec import Codec, load_codec


class Films(Dataset[Tensor]):
    """Gray films [1, size, size] float32 in [-1, 1], padded to squares with black and averaged down by Pillow, in 8 bits."""

    def __init__(self, paths: Sequence[str], size: int) -> None:
        self._paths, self._size = paths, size

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, at: int) -> Tensor:
        with Image.open(self._paths[at]) as image:
            film = image.convert("L")
        if film.size != (self._size, self._size):
            film = ImageOps.pad(film, (self._size, self._size), Image.Resampling.BOX)
        return torch.from_numpy(np.asarray(film, dtype=np.float32))[None] / 127.5 - 1


class PlainScript:
    """The script's parts, made once: workers are kept, so that their start is not timed over and over."""

    def __init__(self, paths: Sequence[str], codec: Codec, *, batch_size: int, workers: int) -> None:
        films = Films(paths, codec.recipe.resolution)
        self._loader = DataLoader(films, batch_size=batch_size, num_workers=workers, persistent_workers=workers > 0)
        assert codec.encoder is not None
        self._network = plain(codec.encoder)

    @torch.no_grad()
    def run(self, out: Path) -> Tensor:
        """Encodes all films and saves their codes [n, *shape], which it returns as well."""
        codes = torch.cat([self._network(batch) for batch in self._loader])
        torch.save(codes, out)
        return codes


def plain(network: nn.Module) -> nn.Module:
    """A copy of a network in the layout that torch gives it by itself."""
    return copy.deepcopy(network).to(memory_format=torch.contiguous_format)


def paths_of(manifest: str) -> list[str]:
    """The column `path` of a CSV."""
    with open(manifest, newline="") as file:
        return [row["path"] for row in csv.DictReader(file)]


if __name__ == "__main__":
    PlainScript(paths_of(sys.argv[1]), load_codec(sys.argv[2]), batch_size=16, workers=os.cpu_count() or 1).run(Path(sys.argv[3]))
