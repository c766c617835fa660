"""Checks one committed shard: its objects against their record, and its rows against one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.archive.chunks import ChunkCodec, Column
from engine.archive.consistency import contradictions, count_rows
from engine.archive.problem import Problem
from engine.archive.root import COMMIT, Root, sha256
from engine.errors import ArchiveError
from engine.records import ShardReceipt


@dataclass(frozen=True, slots=True)
class Checked:
    """What is wrong with one shard, and its sample ids where level 3 could read them."""

    problems: list[Problem]
    ids: list[str] | None = None


@dataclass(frozen=True, slots=True)
class ShardCheck:
    """Checks shards of one archive at one level; `sizes` has the size of every file in the store, by key. Safe to share by threads."""

    root: Root
    codecs: Mapping[str, ChunkCodec]
    sizes: Mapping[str, int]
    level: int

    def check(self, shard: int, receipt: ShardReceipt) -> Checked:
        """Compares the record of `shard` with its objects: sizes, from level 2 sha256, from level 3 the decoded rows."""
        problems = self._of_record(shard, receipt)
        if problems:
            return Checked(problems)
        problems = self._of_sizes(receipt)
        if self.level < 2:
            return Checked(problems)
        blobs = self._read(receipt, problems)
        return self._of_rows(receipt, blobs) if self.level >= 3 and not problems else Checked(problems)

    def _of_record(self, shard: int, receipt: ShardReceipt) -> list[Problem]:
        first, last = self.root.rows_of(shard)
        key = f"{COMMIT}/c/{shard}"
        if (receipt.shard, receipt.first_row, receipt.num_rows, sum(receipt.rows.values())) != (shard, first, last - first, last - first):
            return [Problem(key, "the commit record is of other rows")]
        if receipt.objects.keys() != {codec.key(shard) for codec in self.codecs.values()}:
            return [Problem(key, "the commit record does not name this shard's objects")]
        return []

    def _of_sizes(self, receipt: ShardReceipt) -> list[Problem]:
        problems = []
        for key, entry in receipt.objects.items():
            size = self.sizes.get(key)
            if entry is None and size is not None:
                problems.append(Problem(key, "is there, but its commit record says that there is none"))
            elif entry is not None and size is None:
                problems.append(Problem(key, "is missing"))
            elif entry is not None and size != entry["bytes"]:
                problems.append(Problem(key, f"has {size} bytes, {entry['bytes']} were committed"))
        return problems

    def _read(self, receipt: ShardReceipt, problems: list[Problem]) -> dict[str, bytes | None]:
        """The shard's objects; those that cannot be read, or are not the committed ones, are added to `problems`."""
        wrong = {problem.object for problem in problems}
        blobs: dict[str, bytes | None] = {}
        for key, entry in receipt.objects.items():
            if entry is None or key in wrong:
                blobs[key] = None
                continue
            try:
                data = self.root.store.read(key)
            except ArchiveError as error:
                problems.append(Problem(key, str(error)))
                continue
            blobs[key] = data
            if sha256(data) != entry["sha256"]:
                problems.append(Problem(key, "its sha256 is not the committed one"))
        return blobs

    def _of_rows(self, receipt: ShardReceipt, blobs: Mapping[str, bytes | None]) -> Checked:
        columns: dict[str, Column] = {}
        keys = {name: codec.key(receipt.shard) for name, codec in self.codecs.items()}
        for name, codec in self.codecs.items():
            try:
                columns[name] = codec.decode(receipt.shard, blobs[keys[name]])
            except (ValueError, RuntimeError) as error:
                return Checked([Problem(keys[name], f"does not decode: {str(error).splitlines()[0]}")])
        wrong = contradictions(columns, receipt.failures, first_row=receipt.first_row)
        problems = [Problem(keys[name], what) for name, what in wrong]
        if count_rows(columns["status"]) != receipt.rows:
            problems.append(Problem(keys["status"], "the rows by status are not those of the commit record"))
        return Checked(problems, ids=[str(name) for name in columns["sample_id"]])
