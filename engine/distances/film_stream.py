"""Films of a source, or the films that the codes of an archive stand for, as a stream of batches, summed up set by set on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from engine.archive.root import ROOT_KEY
from engine.config import DecodeConfig
from engine.decode.choose import build_decoder
from engine.errors import ArchiveError
from engine.features import FeatureNetwork
from engine.frechet import Moments
from engine.latents.film_labels import Rows, Table, of_plan, read_table
from engine.recipe import PixelRecipe
from engine.replay import Replay, listed
from engine.source.opening import read_bytes
from engine.source.plan import Plan

_BATCH = 16
_PORTION = 256  # films whose features wait until they are summed up: each time costs dim^2 a set, however few they are


class Films(Protocol):
    """Films in a fixed order. `ids` has one of each; `recipe` is how their files became pixels."""

    ids: Sequence[str]
    recipe: PixelRecipe

    def own_labels(self) -> Table:
        """What is known of the films where no table is named."""
        ...

    def batches(self, places: Rows) -> Iterator[tuple[Rows, Tensor]]:
        """Films [n, 1, S, S] in [-1, 1] of these ascending places, and which they are; those that cannot be had are left out."""
        ...


@contextmanager
def open_films(
    place: str, recipe: PixelRecipe, *, id_from: str | None = None, hash_key: bytes | None = None, codec: str | None = None
) -> Iterator[Films]:
    """The films of a SOURCE by the recipe, at its side; of an archive its reconstructions, brought to that side. Raises as both do."""
    if (Path(place) / ROOT_KEY).is_file():
        yield _Reconstructions(place, recipe.resolution, codec)
        return
    with listed(place, id_from=id_from, hash_key=hash_key) as plan:
        yield _Files(plan, recipe)


def sum_up(films: Films, sets: Sequence[Rows], network: FeatureNetwork) -> tuple[list[Moments], int]:
    """The moments of each set of places, in one pass, and how many films could not be had. Each film is read once for all sets.

    Memory: dim^2 doubles a set and a portion of features, whatever the number of films.
    """
    members = np.zeros((len(films.ids), len(sets)), dtype=bool)
    for column, places in enumerate(sets):
        members[places, column] = True
    wanted = np.flatnonzero(members.any(axis=1))
    moments = [Moments(network.dim) for _ in sets]
    read = 0
    for places, vectors in _portions(films, wanted, network):
        read += len(places)
        for column, each in enumerate(moments):
            each.add(vectors[torch.from_numpy(members[places, column])])
    return moments, len(wanted) - read


def _portions(films: Films, wanted: Rows, network: FeatureNetwork) -> Iterator[tuple[Rows, Tensor]]:
    """Places and their features [n, dim], about _PORTION at a time."""
    places: list[Rows] = []
    vectors: list[Tensor] = []
    for some, pixels in films.batches(wanted):
        with torch.inference_mode():
            vectors.append(network.features(pixels).cpu())
        places.append(some)
        if sum(map(len, places)) >= _PORTION:
            yield np.concatenate(places), torch.cat(vectors)
            places, vectors = [], []
    if places:
        yield np.concatenate(places), torch.cat(vectors)


class _Files:
    """The films that a plan lists."""

    def __init__(self, plan: Plan, recipe: PixelRecipe) -> None:
        self._plan, self.recipe = plan, recipe
        self.ids: Sequence[str] = plan.table(["sample_id"]).column(0).to_pylist()

    def own_labels(self) -> Table:
        return of_plan(self._plan, None)

    def batches(self, places: Rows) -> Iterator[tuple[Rows, Tensor]]:
        limits, wanted = DecodeConfig(), set(places.tolist())
        read = partial(read_bytes, max_bytes=limits.max_bytes)
        decoder = build_decoder(self.recipe, limits, read=read, batch_size=_BATCH, film_size=None)
        try:
            for shard in self._plan.shards():
                refs = [ref for ref in shard.refs if ref.row in wanted]
                for batch in decoder.batches(refs) if refs else ():
                    if batch.refs:
                        yield np.array([ref.row for ref in batch.refs]), batch.pixels
        finally:
            decoder.close()


class _Reconstructions:
    """What the codes of an archive stand for; rows without a finite code give nothing."""

    def __init__(self, archive: str, size: int, codec: str | None) -> None:
        self._archive, self._size = archive, size
        self._replay = Replay(archive, codec=codec)
        self._row_of = self._replay.row_of
        self.ids: Sequence[str] = list(self._row_of)
        self.recipe = replace(self._replay.codec.recipe, resolution=size)
        if not self.ids:
            raise ArchiveError(f"the archive holds no code to make a film of: {archive}")

    def own_labels(self) -> Table:
        return read_table(None, self._archive, None)

    def batches(self, places: Rows) -> Iterator[tuple[Rows, Tensor]]:
        rows = list(self._row_of.values())
        for at in range(0, len(places), _BATCH):
            some = places[at : at + _BATCH]
            latents = self._replay.latents([rows[place] for place in some])
            kept = torch.isfinite(latents).flatten(1).all(1)
            if kept.any():
                yield some[kept.numpy()], self._replay.films(latents[kept], self._size) * 2 - 1
