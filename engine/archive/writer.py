"""The writing side: an archive is created aside, a shard is published object by object and then committed, the root is finalised."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from engine.archive.chunks import Column, column_codecs
from engine.archive.cleaning import clean_uncommitted, remove_temporaries
from engine.archive.commits import CommitLog, content_digest, describe_object
from engine.archive.consistency import contradictions, count_rows
from engine.archive.folder_store import FolderStore
from engine.archive.root import ROOT_KEY, AnyPath, check_fingerprint, read_root, sealed
from engine.archive.schema import ArchiveSpec, static_objects
from engine.archive.store import written_aside
from engine.errors import ArchiveError
from engine.records import Shard, ShardReceipt, ShardRows

__all__ = [
    "ArchiveSpec",
    "ShardConflict",
    "ShardWriter",
    "check_fingerprint",
    "clean_uncommitted",
    "create_archive",
    "fill_archive",
    "finalise",
]


class ShardConflict(ArchiveError):
    """Another attempt left other bytes for a shard and no commit record: the driver cleans the shard and tries again."""


def create_archive(path: AnyPath, spec: ArchiveSpec, *, codec_files: Mapping[str, bytes] | None = None) -> None:
    """Creates an empty archive for all rows of a plan, whole or not at all; `codec_files` are embedded, by name.

    Raises ArchiveError when something of that name exists or the disk refuses.
    """
    with written_aside(path) as aside:
        fill_archive(aside, spec, codec_files=codec_files)


def fill_archive(folder: Path, spec: ArchiveSpec, *, codec_files: Mapping[str, bytes] | None) -> None:
    """Writes into an empty folder what makes it an archive of pending shards."""
    store = FolderStore(folder)
    for key, data in static_objects(spec, codec_files).items():
        if not store.put_if_absent(key, data):
            raise ArchiveError(f"another process removes what is being made here; run the same command again: {folder}")


class ShardWriter:
    """Publishes shards of one archive. Any number of processes may have one; it replaces no object, and deletes none but its own record."""

    def __init__(self, path: AnyPath) -> None:
        self._root = read_root(path)
        self._log = CommitLog(self._root)
        self._codecs = column_codecs(self._root)

    @property
    def latent_dtype(self) -> str:
        """The stored type of codes, "f2" or "f4"."""
        return f"f{np.dtype(self._codecs['latent'].dtype_name).itemsize}"

    def publish(self, shard: Shard, rows: ShardRows, *, made_by: Mapping[str, Any], seconds: Mapping[str, float]) -> ShardReceipt:
        """Writes the rows of a shard and commits them; returns the receipt that stands in the archive, should another attempt have won.

        `seconds` gains "archive", the time of encoding and writing. Raises ValueError for rows that are not this shard's, ShardConflict
        when an unfinished attempt is in the way, ArchiveError when the disk refuses.
        """
        committed = self._standing(shard.index)
        if committed is not None:
            return committed
        start = perf_counter()
        columns = self._checked(shard, rows)
        encoded = {codec.key(shard.index): codec.encode(shard.index, columns[name]) for name, codec in self._codecs.items()}
        if not self._publish_objects(encoded):
            return self._winner(shard.index)
        receipt = ShardReceipt(
            shard=shard.index,
            first_row=self._root.rows_of(shard.index)[0],
            num_rows=len(columns["status"]),
            plan_digest=shard.digest,
            attempt=shard.attempt,
            rows=count_rows(columns["status"]),
            objects={key: describe_object(data) for key, data in sorted(encoded.items())},
            failures=list(rows.failures),
            made_by=dict(made_by),
            seconds={**seconds, "archive": perf_counter() - start},
        )
        in_place = self._commit(receipt, encoded)
        return self._winner(shard.index, mine=receipt if in_place else None)

    def _checked(self, shard: Shard, rows: ShardRows) -> dict[str, Column]:
        if not 0 <= shard.index < self._root.num_shards:
            raise ValueError(f"archive has {self._root.num_shards} shards, there is none of index {shard.index}")
        first, last = self._root.rows_of(shard.index)
        if [ref.row for ref in shard.refs] != list(range(first, last)):
            raise ValueError(f"shard {shard.index} must have rows {first} to {last - 1}")
        if set(rows.columns) != set(self._codecs):
            raise ValueError(f"columns must be {sorted(self._codecs)}: {sorted(rows.columns)}")
        columns = {name: _as_stored(name, values) for name, values in rows.columns.items()}
        for name, values in columns.items():
            shape = (last - first, *self._codecs[name].row_shape)
            if values.shape != shape or (name != "sample_id" and values.dtype != self._codecs[name].column_dtype):
                raise ValueError(f"{name} must be {self._codecs[name].dtype_name} of {shape}: {values.dtype} of {values.shape}")
        if list(columns["sample_id"]) != [ref.sample_id for ref in shard.refs]:
            raise ValueError(f"sample ids differ from the plan's in shard {shard.index}")
        wrong = contradictions(columns, rows.failures, first_row=first)
        if wrong:
            raise ValueError(f"shard {shard.index}: " + "; ".join(f"{name}: {what}" for name, what in wrong))
        return columns

    def _publish_objects(self, encoded: Mapping[str, bytes | None]) -> bool:
        """Writes all objects then each its name in order; False as soon as one name holds other bytes, or any where none belong."""
        if not self._root.store.put_all_if_absent({key: data for key, data in encoded.items() if data is not None}):
            return False
        # a driver that took this attempt for dead may have cleaned up meanwhile, or another attempt have added what belongs to it
        return self._in_place(encoded)

    def _commit(self, receipt: ShardReceipt, encoded: Mapping[str, bytes | None]) -> bool:
        """Links the record, and takes it back when an object that it names has gone meanwhile; whether all are in place.

        Objects can only go when a driver takes this attempt for dead and cleans. The cleaner removes objects before it lists records: a
        record that was linked before this listing goes with its objects, and one that is linked after it finds here that they are gone.
        """
        record, key = self._log.encode(receipt), self._log.key(receipt.shard)
        self._root.store.put_if_absent(key, record)
        if self._in_place(encoded):
            return True
        self._root.store.remove_if_equal(key, record)
        return False

    def _in_place(self, encoded: Mapping[str, bytes | None]) -> bool:
        """Whether these very bytes stand in the archive, and nothing where there are none; a size would not tell another attempt's."""
        return all(self._root.store.read_or_none(key) == data for key, data in encoded.items())

    def _winner(self, shard: int, *, mine: ShardReceipt | None = None) -> ShardReceipt:
        committed = self._standing(shard, mine=mine)
        if committed is None:
            raise ShardConflict(f"another attempt left unfinished objects; clean the shard and try again: shard {shard}")
        return committed

    def _standing(self, shard: int, *, mine: ShardReceipt | None = None) -> ShardReceipt | None:
        """The receipt of a shard, None while it is pending. `mine`: one whose objects have just been found in place.

        A writer that was taken for dead may have linked its record when its objects had been cleaned away, and been killed before it
        could take it back. Such a record is taken back here: the objects of a shard that is truly committed are never removed.
        """
        committed = self._log.read(shard)
        if committed is None or (mine is not None and committed.objects == mine.objects):
            return committed
        for key, entry in committed.objects.items():
            data = self._root.store.read_or_none(key)
            if describe_object(data) != entry:
                self._root.store.remove_if_equal(self._log.key(shard), self._log.encode(committed))
                return None
        return committed


def finalise(path: AnyPath) -> None:
    """Closes an archive whose shards are all committed: removes what killed writers left, and seals the digest of all rows in the root.

    Safe to repeat. No writer may be at work. Raises ArchiveError while shards are pending.
    """
    root = read_root(path)
    receipts = CommitLog(root).read_all()
    if len(receipts) != root.num_shards:
        pending = root.num_shards - len(receipts)
        raise ArchiveError(f"archive is not finished, {pending} of {root.num_shards} shards are pending; run the same encode again: {path}")
    remove_temporaries(path)
    attributes = {**root.attributes, "content": content_digest(receipts)}
    data = sealed({**root.document, "attributes": attributes})
    if data != sealed(root.document):
        root.store.replace(ROOT_KEY, data)


def _as_stored(name: str, values: Column) -> Column:
    return np.array([str(value) for value in values], dtype=object) if name == "sample_id" else np.asarray(values)
