"""A whole data set by the design of the published conversion: films in fixed batches, a fixed number of steps, the last code kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.job.plain_script import Films, plain
from benchmarks.refinement.published_loop import PublishedLoop
from engine.encode.codec import Codec


def convert(paths: Sequence[str], codec: Codec, out: Path, *, batch_size: int, steps: int) -> Tensor:
    """Codes [n, *shape] of all films, refined for `steps` steps (Weber et al. 2022, section 3.2), and saved as one file of tensors.

    A batch is read, encoded in eager float32 and refined as a whole, then the next one: nothing overlaps, and no film ends early.
    """
    assert codec.encoder is not None
    encoder = plain(codec.encoder)
    kept = []
    for films in DataLoader(Films(paths, codec.recipe.resolution), batch_size=batch_size):
        with torch.no_grad():
            start = encoder(films)
        loop = PublishedLoop(codec.generator, films, start, steps=steps)
        for _ in range(steps):
            loop.step()
        kept.append(codec.project(loop.codes.detach()))
    codes = torch.cat(kept)
    torch.save(codes, out)
    return codes
