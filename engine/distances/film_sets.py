"""Which films each set is made of: those with an attribute, those with none of them, all, and two halves that are alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import ConfigError
from engine.labels import LabelSpec
from engine.latents.film_labels import Marks, Rows, Table, mark_ids
from engine.stratified_split import PATIENT_COLUMNS, stratify

BASELINE, ALL, HALVES = "baseline", "all films", "stratified halves"
LEAST = 10  # films of a set; a covariance of fewer says nothing


@dataclass(frozen=True, kw_only=True, eq=False)
class FilmSets:
    """Sets of films as places in their list, ascending. `sets` by name, the `baseline` first; all with all others they make the matrix.

    `pairs` by name: two sets that are held against one another alone. `left_out`: how many films those had that were too few.
    """

    baseline: str
    sets: Mapping[str, Rows]
    pairs: Mapping[str, tuple[Rows, Rows]]
    left_out: Mapping[str, int]


def choose_sets(
    ids: Sequence[str],
    table: Table,
    attributes: Sequence[str],
    *,
    contrasts: Sequence[str] = (),
    baseline: str | None = None,
    films: int | None = None,
    seed: int = 0,
) -> FilmSets:
    """The sets of table 1 of Segal et al. 2021, from what a table says of these films; attributes as `LabelSpec` reads them.

    A set for each attribute; the baseline, films that have none of them, or those of the attribute that `baseline` names; all films, for
    as far from the baseline as these is a set by its other findings alone. Pairs: halves of all films with alike shares of every attribute
    and no patient in both, which tell what no difference looks like, and films with and without each of `contrasts` (the paper's "Sex"),
    which do not count for the baseline.
    `films`: sets are cut to so many, drawn by the seed, and those of fewer left out; without it those under LEAST are.
    Raises ConfigError for a column that is not there, names that are not different and a baseline that is too small, SourceError where the
    table knows none of the ids.
    """
    _refuse_equal_names([*attributes, *contrasts])
    asked, chosen = _names(attributes, baseline)
    compared = _by_name(contrasts)
    _check_columns(table, [*asked.values(), *compared.values()])
    found = {name: _marked(ids, table, text) for name, text in {**asked, **compared}.items()}
    sets = {name: np.flatnonzero(found[name][0]) for name in asked}
    if chosen == BASELINE:
        sets[BASELINE] = np.flatnonzero(np.all([known & ~has for has, known in (found[name] for name in asked)], axis=0))
    sets = {chosen: sets[chosen], **sets, ALL: np.arange(len(ids))}
    marks = np.stack([has for has, _ in found.values()], axis=1)
    half = stratify(patients_of(ids, table), marks.astype(np.float64), (0.5, 0.5), seed=seed)
    pairs = {HALVES: (np.flatnonzero(half == 0), np.flatnonzero(half == 1))}
    pairs |= {name: (np.flatnonzero(found[name][0]), np.flatnonzero(found[name][1] & ~found[name][0])) for name in compared}
    needed = films or LEAST
    if len(sets[chosen]) < needed:
        raise ConfigError(f"distances are to a baseline of {needed} films or more, another is named with --baseline: {len(sets[chosen])}")
    if not any(len(sets[name]) >= needed for name in asked if name != chosen):
        raise ConfigError(f"no attribute has {needed} films or more to hold against the baseline: {', '.join(attributes)}")
    left_out = {name: len(places) for name, places in sets.items() if len(places) < needed}
    left_out |= {name: size for name, both in pairs.items() if (size := min(map(len, both))) < needed}
    return FilmSets(
        baseline=chosen,
        sets={name: cut(places, films, seed, at) for at, (name, places) in enumerate(sets.items()) if name not in left_out},
        pairs={name: (cut(a, films, seed, 0), cut(b, films, seed, 1)) for name, (a, b) in pairs.items() if name not in left_out},
        left_out=left_out,
    )


def cut(places: Rows, films: int | None, seed: int, stream: int = 0) -> Rows:
    """So many of these places, drawn by the seed and the stream, ascending; all with None."""
    return places if films is None else np.sort(np.random.default_rng([seed, stream]).permutation(places)[:films])


def patients_of(ids: Sequence[str], table: Table) -> list[str]:
    """The patient of each film, where a column of PATIENT_COLUMNS names them; a film without one is a patient of its own."""
    column = next((name for name in PATIENT_COLUMNS if name in table), None)
    cells: Mapping[str, str | None] = {} if column is None else table[column]
    return [f"film {name}" if (patient := cells.get(name)) is None else f"patient {patient}" for name in ids]


def _check_columns(table: Table, texts: Iterable[str]) -> None:
    """Raises ConfigError where an attribute asks for a column that the table has not."""
    for text in texts:
        for column in LabelSpec.parse(text).columns:
            if column not in table:
                raise ConfigError(f"the labels have no such column, there are {', '.join(table) or 'none'}: {column}")


def _names(attributes: Sequence[str], baseline: str | None) -> tuple[dict[str, str], str]:
    """Attributes by name, that of the baseline among them, and its name."""
    asked = _by_name(attributes)
    if baseline is None:
        return asked, BASELINE
    name = LabelSpec.parse(baseline).name
    return (asked if name in asked else {name: baseline, **asked}), name


def _by_name(texts: Sequence[str]) -> dict[str, str]:
    return {LabelSpec.parse(text).name: text for text in texts}


def _refuse_equal_names(texts: Sequence[str]) -> None:
    names = [LabelSpec.parse(text).name for text in texts]
    for name in names:
        if names.count(name) > 1 or name in (BASELINE, ALL, HALVES):
            raise ConfigError(f"attributes must have names of their own (NAME: TERM, TERM gives one): {name}")


def _marked(ids: Sequence[str], table: Table, text: str) -> tuple[Marks, Marks]:
    """Which films have the attribute, and of which it is known whether they do: [films] each."""
    marked = mark_ids(ids, table, text)
    has: np.ndarray[Any, np.dtype[np.bool_]] = np.zeros(len(ids), dtype=bool)
    known = has.copy()
    has[marked.places], known[marked.places] = marked.marks, True
    return has, known
