"""The plan's Parquet file: written aside and renamed, in row groups that whole shards fit into, read one group at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import ArchiveError
from engine.json_object import read_json_object
from engine.source.digests import VERSION, PlanDigest
from engine.source.ordering import Row
from engine.source.place import why

LABEL = "label:"
_METADATA = b"latentray.plan"
_GROUP_ROWS = 65536
_MAX_METADATA_BYTES = 2**24  # it lists the labels


@dataclass(frozen=True, kw_only=True)
class About:
    """What the plan's file says about itself, as JSON in its schema metadata."""

    num_rows: int
    shard_rows: int
    kind: str
    root: str
    id_from: str
    hashed_ids: bool
    label_names: tuple[str, ...]


def group_rows(shard_rows: int) -> int:
    """Rows of a row group: about 65,536, a multiple of the shard's size where a shard is not larger than that."""
    return max(1, _GROUP_ROWS // shard_rows) * shard_rows if shard_rows <= _GROUP_ROWS else _GROUP_ROWS


def write_plan(path: Path, rows: Iterator[Row], about: About) -> str:
    """Writes rows of (sample id, uri, labels ...), in their final order, and returns the plan's digest. Raises ArchiveError."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = _write(aside, rows, about)
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    except (OSError, pa.ArrowException) as error:
        raise ArchiveError(f"plan cannot be written: {why(error)}: {path}") from None
    finally:
        aside.unlink(missing_ok=True)
    return digest


def _write(path: Path, rows: Iterator[Row], about: About) -> str:
    labels = [(LABEL + name, pa.string()) for name in about.label_names]
    schema = pa.schema([("row", pa.int64()), ("sample_id", pa.string()), ("uri", pa.string()), ("shard", pa.int32()), *labels])
    digest = PlanDigest(num_rows=about.num_rows, shard_rows=about.shard_rows, root=about.root)
    first = 0
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        while group := list(islice(rows, group_rows(about.shard_rows))):
            ids, uris, *columns = zip(*group, strict=True)
            digest.add(ids, uris)
            row = np.arange(first, first + len(group))
            arrays = [row, ids, uris, row // about.shard_rows, *columns]
            writer.write_table(pa.table([pa.array(a, t) for a, t in zip(arrays, schema.types, strict=True)], schema=schema))
            first += len(group)
        found = digest.hexdigest()
        writer.add_key_value_metadata({_METADATA: json.dumps({"version": VERSION, "digest": found, **asdict(about)})})
    return found


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """The plan's file, with its checksums checked as pages are read; ArchiveError where it is missing, damaged or not a plan."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except FileNotFoundError:
        raise ArchiveError(f"plan is missing; run the same `encode` again: {path}") from None
    except (OSError, pa.ArrowException) as error:
        raise ArchiveError(f"plan is damaged; delete it and run the same `encode` again, {str(error).splitlines()[0]}: {path}") from None


def read_about(path: Path) -> tuple[About, str]:
    """What a plan says about itself, and its digest. Raises ArchiveError where it is not a plan that this version can read."""
    with open_parquet(path) as file:
        stored = (file.schema_arrow.metadata or {}).get(_METADATA) or (file.metadata.metadata or {}).get(_METADATA)
        num_rows = file.metadata.num_rows
    if stored is None:
        raise ArchiveError(f"file is not a plan of latentray: {path}")
    try:
        fields = read_json_object(stored, max_bytes=_MAX_METADATA_BYTES)
        version, digest = fields.pop("version"), str(fields.pop("digest"))
        if version != VERSION:
            raise ArchiveError(f"plan has a version that is unknown here, {str(version)[:20]}: {path}")
        about = About(**{**fields, "label_names": tuple(map(str, fields["label_names"]))})
    except (ValueError, KeyError, TypeError) as error:
        raise ArchiveError(f"plan is damaged; delete it and run the same `encode` again, {type(error).__name__}: {path}") from None
    if about.num_rows != num_rows:
        raise ArchiveError(f"plan has {num_rows} rows and should have {about.num_rows}: {path}")
    return about, digest


class RowGroups:
    """Rows of an open plan by their numbers, with one row group in memory. Quick when asked in ascending order."""

    def __init__(self, file: pq.ParquetFile, more: Sequence[str] = ()) -> None:
        self._file, self._columns = file, ["sample_id", "uri", *more]
        sizes = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
        self._firsts = list(accumulate(sizes, initial=0))
        self._loaded = -1
        self._table: pa.Table | None = None

    def rows(self, first: int, last: int) -> tuple[list[str], ...]:
        """Ids, uris, and the values of each of `more`, of rows `first` to `last` (not included)."""
        found: tuple[list[str], ...] = tuple([] for _ in self._columns)
        for at in self._overlapping(first, last):
            start = max(first - self._firsts[at], 0)
            part = self._load(at).slice(start, last - self._firsts[at] - start)
            for values, name in zip(found, self._columns, strict=True):
                values.extend(part.column(name).to_pylist())
        return found

    def _overlapping(self, first: int, last: int) -> Iterable[int]:
        return range(int(np.searchsorted(self._firsts, first, "right")) - 1, int(np.searchsorted(self._firsts, last, "left")))

    def _load(self, at: int) -> pa.Table:
        if self._table is None or self._loaded != at:
            self._table, self._loaded = None, at  # the old group goes before the new one comes
            self._table = self._file.read_row_group(at, columns=self._columns)
        return self._table
