"""Fréchet distances between sets of films, as table 1 and figure 5 of Segal et al. 2021 have them: each film is read once."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import check_at_least
from engine.distances.film_sets import ALL, LEAST, FilmSets, choose_sets, cut
from engine.distances.film_stream import open_films, sum_up
from engine.errors import ConfigError, SourceError
from engine.features import FeatureNetwork
from engine.frechet import Moments, frechet_distance, frechet_distances
from engine.latents.film_labels import read_table
from engine.recipe import PixelRecipe

Matrix = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table: a set of so many `films`, and its squared distance to another."""

    split: str
    films: int
    to: str
    to_films: int
    distance: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Distances:
    """What was measured. `matrix` [sets, sets]: squared distances of each two of `sets` (films by name, the `baseline` first), which were
    `cut_to` so many films, or not at all.

    `against`: the sets that are no splits of the source. `left_out`: sets of too few films, and how many they have; `unread`: films that
    gave no pixels; `other_recipes`: those of `against` whose films were made of their files another way.
    """

    source: str
    features: Mapping[str, str | int]
    size: int
    seed: int
    cut_to: int | None
    baseline: str
    sets: Mapping[str, int]
    matrix: Matrix
    rows: Sequence[Row]
    against: Sequence[str]
    left_out: Mapping[str, int]
    unread: int
    other_recipes: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("rows", "matrix")}
        return plain | {"matrix": self.matrix.tolist(), "rows": [asdict(row) for row in self.rows]}


def measure_distances(
    source: str,
    network: FeatureNetwork,
    attributes: Sequence[str],
    *,
    labels: str | None = None,
    contrasts: Sequence[str] = (),
    baseline: str | None = None,
    against: Sequence[str] = (),
    size: int | None = None,
    films: int | None = None,
    seed: int = 0,
    id_from: str | None = None,
    hash_key: bytes | None = None,
    codec: str | None = None,
) -> Distances:
    """Distances between the splits of `source` that `choose_sets` makes, and of all its films to those of `against`.

    A source may be an archive, which stands for its reconstructions. `labels`: a table or `phantom:N`; left out: what the source itself
    says. `size`: side at which the network is shown films, by default its own. `films`: cuts every set to so many; few films raise a
    distance, so only sets of one size compare. Raises as `choose_sets`, and SourceError where the baseline's films cannot be read.
    """
    check_at_least("films", LEAST if films is None else films, LEAST)
    recipe = network.recipe if size is None else replace(network.recipe, resolution=size)
    with ExitStack() as stack:
        opened = stack.enter_context(open_films(source, recipe, id_from=id_from, hash_key=hash_key, codec=codec))
        others = [stack.enter_context(open_films(place, recipe, id_from="relpath", codec=codec)) for place in against]
        table = opened.own_labels() if labels is None else read_table(labels, source, None, hash_key=hash_key)
        chosen = choose_sets(opened.ids, table, attributes, contrasts=contrasts, baseline=baseline, films=films, seed=seed)
        found, unread = sum_up(opened, [*chosen.sets.values(), *chain.from_iterable(chosen.pairs.values())], network)
        sets = dict(zip(chosen.sets, found, strict=False))
        pairs = dict(zip(chosen.pairs, zip(*[iter(found[len(sets) :])] * 2, strict=True), strict=True))
        names = _names_of(against, taken=sets)
        for name, other in zip(names, others, strict=True):
            [sets[name]], missing = sum_up(other, [cut(np.arange(len(other.ids)), films, seed)], network)
            unread += missing
    return Distances(
        source=source,
        features=network.told(),
        size=recipe.resolution,
        seed=seed,
        cut_to=films,
        unread=unread,
        other_recipes=tuple(name for name, other in zip(names, others, strict=True) if not _alike(other.recipe, opened.recipe)),
        **_compared(chosen, sets, pairs, names),
    )


def _alike(first: PixelRecipe, second: PixelRecipe) -> bool:
    return replace(first, tolerance=second.tolerance) == second  # which only says how closely decoders must agree


def _compared(
    chosen: FilmSets, sets: Mapping[str, Moments], pairs: Mapping[str, tuple[Moments, Moments]], against: Sequence[str]
) -> dict[str, Any]:
    """The fields that follow from the moments."""
    left_out = {**chosen.left_out, **{name: each.count for name, each in sets.items() if each.count < LEAST}}
    if chosen.baseline in left_out:
        raise SourceError(f"of the films of the baseline too few can be read, {LEAST} are needed: {left_out[chosen.baseline]}")
    kept = {name: each for name, each in sets.items() if name not in left_out}
    matrix = frechet_distances(list(kept.values())).numpy()
    names = list(kept)
    rows = []
    for name, (first, second) in pairs.items():
        if min(first.count, second.count) < LEAST:
            left_out[name] = min(first.count, second.count)
        else:
            rows.append(
                Row(split=name, films=first.count, to="the others", to_films=second.count, distance=frechet_distance(first, second))
            )
    for at, name in enumerate(names):
        to = ALL if name in against and ALL in kept else chosen.baseline
        rows.append(Row(split=name, films=kept[name].count, to=to, to_films=kept[to].count, distance=float(matrix[at, names.index(to)])))
    return {
        "baseline": chosen.baseline,
        "sets": {name: each.count for name, each in kept.items()},
        "matrix": matrix,
        "rows": tuple(rows),
        "against": tuple(name for name in against if name in kept),
        "left_out": left_out,
    }


def _names_of(places: Sequence[str], *, taken: Container[str]) -> list[str]:
    """Other sources and archives by what the table calls them: the last part of their path where that tells them from all else."""
    if len(set(places)) < len(places):
        raise ConfigError(f"sources to compare with must be different: {', '.join(places)}")
    short = [Path(place).name.removesuffix(".zarr") for place in places]
    return [name if name and short.count(name) == 1 and name not in taken else place for name, place in zip(short, places, strict=True)]
