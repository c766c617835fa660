"""A manifest, row by row: CSV, TSV or Parquet with a column `path`, optionally `id`, and any others as labels."""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, BinaryIO, NamedTuple

from engine.errors import SourceError
from engine.source.place import Place, escape_undecodable, why

MANIFESTS = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
MAX_LABELS = 1900  # what one SQLite table can hold beside our own columns
_BATCH_ROWS = 16384
Cells = Sequence[str | None]
OpenCells = Callable[[], Generator[Cells, None, None]]


class Row(NamedTuple):
    """One row of a manifest: the path as written, its id where the manifest has that column, and its labels in column order."""

    path: str
    id: str | None
    labels: tuple[str | None, ...]


class Manifest(NamedTuple):
    """An open manifest. `kind` is csv, tsv or parquet; `rows` streams and raises SourceError where the file turns out to be damaged."""

    kind: str
    has_ids: bool
    label_names: tuple[str, ...]
    rows: Iterator[Row]


def manifest_kind(path: str) -> str | None:
    """csv, tsv or parquet by the file's name; None for every other file."""
    return MANIFESTS.get(posixpath.splitext(path)[1].lower())


def open_manifest(place: Place, path: str) -> Manifest:
    """Opens a manifest and checks its columns. Raises SourceError, naming the manifest."""
    shown = escape_undecodable(path)
    kind = MANIFESTS[posixpath.splitext(path)[1].lower()]

    def cells() -> Generator[Cells, None, None]:
        if kind == "parquet":
            return _parquet(place.open(path), shown)
        return _csv(place.open(path), shown, "\t" if kind == "tsv" else ",")

    with closing(cells()) as head:  # opened again for the rows, so that a listing nobody reads holds no file
        names = [name or "" for name in next(head, ())]
    labels = _label_columns(names, shown)
    id_at = names.index("id") if "id" in names else None
    rows = _rows(cells, names.index("path"), id_at, labels, shown)
    return Manifest(kind, id_at is not None, tuple(names[at] for at in labels), rows)


def _label_columns(names: list[str], shown: str) -> list[int]:
    """Where the labels are, once the columns have been found to be in order."""
    if "path" not in names:
        raise SourceError(f"manifest has no column `path`; it has {', '.join(names) or 'none'}: {shown}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SourceError(f"manifest has two columns of one name, {', '.join(twice)}: {shown}")
    labels = [at for at, name in enumerate(names) if name not in ("path", "id")]
    if len(labels) > MAX_LABELS:
        raise SourceError(f"manifest has more than {MAX_LABELS} label columns, {len(labels)}: {shown}")
    return labels


def _rows(open_cells: OpenCells, path_at: int, id_at: int | None, labels: list[int], shown: str) -> Iterator[Row]:
    with closing(open_cells()) as cells:
        next(cells, None)  # the header
        for number, row in enumerate(cells, start=1):
            path = row[path_at]
            if not path:
                raise SourceError(f"manifest has an empty `path` in its row {number}: {shown}")
            if "\0" in path:
                raise SourceError(f"manifest has a `path` with a NUL character in its row {number}: {shown}")
            yield Row(path, None if id_at is None else row[id_at], tuple([row[at] for at in labels]))


def _csv(stream: BinaryIO, shown: str, delimiter: str) -> Generator[Cells, None, None]:
    """The header, then the rows, of a CSV in UTF-8 (with or without a byte order mark). Empty cells are None, empty lines nothing."""
    with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            width = 0
            for row in reader:
                width = width or len(row)
                if len(row) == width:
                    yield [cell or None for cell in row]
                elif row:
                    raise SourceError(f"manifest has {len(row)} cells instead of {width} in line {reader.line_num}: {shown}")
        except UnicodeDecodeError:
            raise SourceError(f"manifest is not UTF-8 text near line {reader.line_num + 1}: {shown}") from None
        except csv.Error as error:
            raise SourceError(f"manifest is not a readable table in line {reader.line_num}, {error}: {shown}") from None
        except OSError as error:
            raise SourceError(f"manifest cannot be read: {why(error)}: {shown}") from None


def _parquet(stream: BinaryIO, shown: str) -> Generator[Cells, None, None]:
    """The column names, then the rows, of a Parquet file, all as text; lists and structs as JSON."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with stream:
        try:
            # Without these two settings whole row groups are held, which some writers make as large as the data set.
            file = pq.ParquetFile(stream, buffer_size=1 << 20, pre_buffer=False)
            yield file.schema_arrow.names
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                yield from zip(*(_as_text(column) for column in batch.columns), strict=True)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"manifest is not a readable Parquet file, {str(error).splitlines()[0]}: {shown}") from None


def _as_text(column: Any) -> list[str | None]:
    import pyarrow as pa

    if pa.types.is_nested(column.type):
        return [None if value is None else json.dumps(value, default=str) for value in column.to_pylist()]
    texts: list[str | None] = column.cast(pa.string()).to_pylist()
    return texts
