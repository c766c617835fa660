"""What is known of the films of an archive: columns of a table or the truth of phantoms, matched by id; and one attribute as yes or no."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.archive.root import AnyPath, plan_beside
from engine.errors import ArchiveError, ConfigError, SourceError
from engine.labels import LabelSpec
from engine.latents.codes import Codes
from engine.records import ImageRef
from engine.replay import listed
from engine.source.identity import hash_id
from engine.source.plan import Plan, open_plan
from engine.source.plan_file import LABEL

IDS = ("id", "sample_id")  # columns of ids; without one, the stem of "path"
_SHOWN = 8

Rows = np.ndarray[Any, np.dtype[np.int64]]
Marks = np.ndarray[Any, np.dtype[np.bool_]]
Table = Mapping[str, Mapping[str, str | None]]
"""Cells by column, then by id; None for empty ones."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Marked:
    """Which films have an attribute: `places` among them [n], `marks` of these [n]. `unknown`: films that it says nothing of."""

    places: Rows
    marks: Marks
    unknown: int


def read_table(place: str | None, archive: AnyPath, columns: Iterable[str] | None, *, hash_key: bytes | None = None) -> Table:
    """These columns, or with None all, of a CSV or Parquet table, of `phantom:N?seed=K`, or without a `place` of the archive's own plan.

    `hash_key` turns the table's ids into those of an archive of hashed ids. Raises SourceError where there is no such table, and
    ConfigError for a column that it has not.
    """
    wanted = None if columns is None else tuple(dict.fromkeys(columns))
    if place is None:
        return _of_plan(plan_beside(archive), wanted)
    found = _of_listed(place, wanted) if place.startswith("phantom:") else _of_file(Path(place), wanted)
    if hash_key is None:
        return found
    return {name: {hash_id(sample_id, hash_key): cell for sample_id, cell in cells.items()} for name, cells in found.items()}


def of_plan(plan: Plan, columns: Sequence[str] | None, *, what: str = "the manifest") -> Table:
    """These columns, or with None all, of the films that a plan lists: the manifest's labels, or the truth of phantoms.

    Raises ConfigError for a column that `what` has not.
    """
    if plan.about.kind == "phantom":
        return _of_phantoms((shard.refs for shard in plan.shards()), columns)
    columns = _check_columns(columns, plan.label_names, what)
    ids, *cells = (column.to_pylist() for column in plan.table(["sample_id", *(LABEL + name for name in columns)]).columns)
    return {name: dict(zip(ids, map(_cell, column), strict=True)) for name, column in zip(columns, cells, strict=True)}


def mark(codes: Codes, table: Table, attribute: str) -> Marked:
    """Which of the codes have the attribute; see `mark_ids`."""
    return mark_ids(codes.ids, table, attribute)


def mark_ids(ids: Sequence[str], table: Table, attribute: str) -> Marked:
    """Which of these films have the attribute, as `LabelSpec` reads it ("cardiomegaly", "opacity?", "sex=F", "age>60/<=40").

    Raises SourceError where the table, which has the attribute's columns, knows none of the ids.
    """
    spec = LabelSpec.parse(attribute)
    known = [place for place, name in enumerate(ids) if all(name in table[column] for column in spec.columns)]
    if not known:
        raise SourceError(f"none of the {len(ids)} ids is in the labels (of an archive of hashed ids, name --hash-ids): {ids[0]}")
    cells = {column: [table[column][ids[place]] for place in known] for column in spec.columns}
    said = [(place, mark) for place, mark in zip(known, spec.marks(cells), strict=True) if mark is not None]
    if not said:
        raise SourceError(f"labels say neither yes nor no of any film for this attribute: {attribute}")
    places, marks = zip(*said, strict=True)
    return Marked(places=np.array(places, dtype=np.int64), marks=np.array(marks, dtype=bool), unknown=len(ids) - len(said))


def _of_plan(path: Path, columns: Sequence[str] | None) -> Table:
    try:
        return of_plan(open_plan(path), columns, what="the manifest that the archive was made from")
    except ArchiveError:
        raise SourceError(f"the archive's own plan cannot be read, name a table with --labels: {path}") from None


def _of_phantoms(shards: Iterable[Sequence[ImageRef]], columns: Sequence[str] | None) -> Table:
    from engine.source.phantom import draw_labels, parse_phantom_uri  # a simulator, which films of patients need not load

    found: dict[str, dict[str, str | None]] = {}
    for ref in chain.from_iterable(shards):
        place = parse_phantom_uri(ref.uri)
        truth = draw_labels(place.seed, place.index, size=place.size)
        for name in _check_columns(columns, list(truth), "phantoms"):
            value = truth[name]
            found.setdefault(name, {})[ref.sample_id] = _cell(int(value) if isinstance(value, bool) else value)
    return found


def _of_listed(source: str, columns: Sequence[str] | None) -> Table:
    with listed(source, id_from=None) as plan:
        return of_plan(plan, columns)


def _of_file(path: Path, columns: Sequence[str] | None) -> Table:
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path).to_pydict()
        else:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                rows = list(reader)
                table = {name: [row[name] for row in rows] for name in reader.fieldnames or ()}
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise SourceError(f"labels cannot be read ({getattr(error, 'strerror', None) or error}): {path}") from None
    ids = _ids(table, path)
    columns = _check_columns(columns, [name for name in table if columns is not None or name not in (*IDS, "path")], "the labels")
    return {name: dict(zip(ids, map(_cell, table[name]), strict=True)) for name in columns}


def _ids(table: Mapping[str, Sequence[Any]], path: Path) -> list[str]:
    for name in IDS:
        if name in table:
            return [str(value) for value in table[name]]
    if "path" in table:
        return [Path(str(value)).stem for value in table["path"]]
    raise ConfigError(f"labels need a column of ids ({', '.join(IDS)}, or path for its stem), there are {', '.join(table)}: {path}")


def _check_columns(wanted: Sequence[str] | None, there: Sequence[str], what: str) -> Sequence[str]:
    """The columns that are wanted, all with None. Raises ConfigError for one that is not there."""
    for name in wanted or ():
        if name not in there:
            shown = ", ".join(there[:_SHOWN]) + (" ..." if len(there) > _SHOWN else "")
            raise ConfigError(f"{what} has no such column, there are {shown or 'none'}: {name}")
    return there if wanted is None else wanted


def _cell(value: object) -> str | None:
    return None if value is None or str(value).strip() == "" else str(value)
