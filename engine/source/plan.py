"""The plan: every row's order, id, uri and shard, fixed in one Parquet file before anything runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import pyarrow as pa

from engine.config import check_at_least
from engine.errors import ConfigError, SourceError
from engine.records import ImageRef, Shard, is_box
from engine.source.digests import shard_digest
from engine.source.identity import IdFrom, choose_id_from, hash_id, id_maker
from engine.source.listing import Listing, list_source
from engine.source.ordering import Row, RowOrder
from engine.source.place import escape_undecodable
from engine.source.plan_file import LABEL, About, RowGroups, open_parquet, read_about, write_plan

_OWN_COLUMNS = ("row", "sample_id", "uri", "shard")
_SHOWN_DUPLICATES = 5


@dataclass(frozen=True)
class Plan:
    """A plan on disk: cheap to open and to send elsewhere, its rows are read as they are asked for.

    `digest` (sha256, hex) covers version, num_rows, shard_rows, ids and root-relative uris; labels are not part of it. `about.root`
    is the common beginning of the uris below the source, `about.kind` one of folder, glob, file, csv, tsv, parquet, phantom.
    `region`: the label whose values the refs carry as the regions of their films; "" for none.
    """

    path: Path
    digest: str
    about: About
    region: str = ""

    @property
    def num_rows(self) -> int:
        """Films in all."""
        return self.about.num_rows

    @property
    def shard_rows(self) -> int:
        """Rows of every shard but the last, which may have fewer."""
        return self.about.shard_rows

    @property
    def num_shards(self) -> int:
        """Shards in all."""
        return -(-self.num_rows // self.shard_rows)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The manifest's columns other than `path` and `id`, in its order."""
        return self.about.label_names

    @property
    def file_sha256(self) -> str:
        """sha256, in hex, of the file as it lies on disk; reads it whole."""
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def shards(self, indices: Iterable[int] | None = None) -> Iterator[Shard]:
        """The shards of these indices, or all, in ascending order. Holds one row group at a time, and reads only those it needs."""
        wanted = range(self.num_shards) if indices is None else sorted(set(indices))
        if wanted and not 0 <= wanted[0] <= wanted[-1] < self.num_shards:
            raise IndexError(f"plan has {self.num_shards} shards, asked for {wanted[0]} to {wanted[-1]}")
        return self._read_shards(wanted)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """These columns of all rows, or every column: `row` (int64), `sample_id`, `uri`, `shard` (int32), and labels by name, as strings.

        A label named like one of the first four is asked for as `label:<name>`. Raises SourceError for a column that is not there.
        """
        names = [*_OWN_COLUMNS, *(LABEL + name for name in self.label_names)] if columns is None else list(columns)
        places = [self._place_of(name) for name in names]
        with open_parquet(self.path) as file:
            stored = file.read(columns=places)
        return pa.table([stored.column(place) for place in places], names=names)

    def labels(self, name: str) -> pa.ChunkedArray:
        """One label of every row, in row order, as strings; null where the manifest's cell is empty."""
        return self.table([name]).column(0)

    def with_region(self, name: str) -> Plan:
        """The plan whose refs carry this label as regions. Raises SourceError where there is no such label."""
        self._place_of(name)
        return replace(self, region=name)

    def _place_of(self, name: str) -> str:
        """The column of the file that a name asks for. Raises SourceError where there is none."""
        known = {LABEL + name: LABEL + name for name in self.label_names}
        known |= {name: LABEL + name for name in self.label_names} | {name: name for name in _OWN_COLUMNS}
        if name not in known:
            raise SourceError(f"plan has no such column, its labels are {', '.join(self.label_names) or 'none'}: {name}")
        return known[name]

    def _placed(self, region: str | None) -> str:
        """A box without its spaces; the path of a mask, which manifests name as they name films, as one that leads there from anywhere."""
        text = (region or "").strip()
        if is_box(text):
            return text.replace(" ", "")
        is_whole = not text or text.startswith("/") or "://" in text
        return text if is_whole else self.about.root + text.removeprefix("./")

    def _read_shards(self, wanted: Sequence[int]) -> Iterator[Shard]:
        with open_parquet(self.path) as file:
            groups = RowGroups(file, [LABEL + self.region] if self.region else [])
            for index in wanted:
                first = index * self.shard_rows
                ids, uris, *regions = groups.rows(first, min(first + self.shard_rows, self.num_rows))
                rows = range(first, first + len(ids))
                refs = tuple(map(ImageRef, rows, ids, uris, *(map(self._placed, values) for values in regions)))
                yield Shard(index, refs, shard_digest(ids, uris, self.about.root))


def open_plan(path: Path) -> Plan:
    """The plan in this file. Raises ArchiveError where it is missing, damaged, not a plan or of an unknown version."""
    about, digest = read_about(path)
    return Plan(path, digest, about)


def make_plan(
    source: str,
    path: Path,
    *,
    shard_rows: int | Callable[[int], int],
    id_from: str | None = None,
    limit: int | None = None,
    hash_key: bytes | None = None,
) -> Plan:
    """Lists `source`, puts it in order and writes the plan to `path`, in memory that does not grow with the number of films.

    `shard_rows`: rows of a shard, or a function that chooses them once the number of films is known. `id_from`: stem, relpath, column,
    or None for the manifest's column `id` where it has one and the stem elsewhere. `limit` keeps the first rows of the order.
    `hash_key` replaces each id by its keyed hash. Raises SourceError where the source cannot be listed, has no films or has equal ids,
    ConfigError for a setting out of range, ArchiveError where the plan cannot be written.
    """
    check_at_least("limit", 1 if limit is None else limit, 1)
    if hash_key is not None and not hash_key:
        raise ConfigError("the key that hashes ids must not be empty")
    listing = list_source(source)
    with closing(listing.entries), RowOrder(num_labels=len(listing.label_names)) as order:
        chosen = choose_id_from(listing, id_from)
        found = order.fill(_rows(listing, chosen))
        if found == 0:
            raise SourceError(f"source has no films: {escape_undecodable(source)}")
        _refuse_duplicates(order, chosen, source)
        num_rows = found if limit is None else min(found, limit)
        rows_of_shard = shard_rows(num_rows) if callable(shard_rows) else shard_rows
        check_at_least("shard-rows", rows_of_shard, 1)
        rows_of_shard = min(rows_of_shard, num_rows)  # a shard costs what it could hold
        about = About(
            num_rows=num_rows,
            shard_rows=rows_of_shard,
            kind=listing.kind,
            root=listing.root,
            id_from=chosen,
            hashed_ids=hash_key is not None,
            label_names=listing.label_names,
        )
        rows = ((hash_id(str(row[1]), hash_key) if hash_key else row[1], *row[2:]) for row in islice(order.in_order(), about.num_rows))
        return Plan(path, write_plan(path, rows, about), about)


def _rows(listing: Listing, id_from: IdFrom) -> Iterator[Row]:
    make_id = id_maker(listing, id_from)
    for entry in listing.entries:
        yield entry.path.encode(errors="surrogateescape"), make_id(entry), entry.uri, *entry.labels


def _refuse_duplicates(order: RowOrder, id_from: IdFrom, source: str) -> None:
    twice = order.duplicates(limit=_SHOWN_DUPLICATES + 1)
    if twice:
        names = ", ".join(f"{sample_id} ({count} times)" for sample_id, count in twice[:_SHOWN_DUPLICATES])
        more = " and more" if len(twice) > _SHOWN_DUPLICATES else ""
        advice = "list each film once" if id_from == "relpath" else "use --id relpath"
        raise SourceError(f"sample ids are not unique, {names}{more}; {advice}: {escape_undecodable(source)}")
