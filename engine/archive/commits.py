"""Commit records: the one JSON document a shard that makes it true, and everything that is read from them alone."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from itertools import chain
from time import perf_counter
from typing import Any

import google_crc32c
import numpy as np

from engine.archive.chunks import ChunkCodec
from engine.archive.root import COMMIT, AnyPath, Root, canonical_json, read_root, sha256
from engine.errors import ArchiveError
from engine.records import Failure, ShardReceipt, Status

UNREADABLE = (ValueError, RuntimeError, KeyError, TypeError, AttributeError)  # what decoding and parsing damaged bytes can raise
_FIELDS = tuple(field.name for field in fields(ShardReceipt))
_KINDS = dict.fromkeys(("shard", "first_row", "num_rows", "attempt"), int) | dict.fromkeys(("rows", "objects", "made_by", "seconds"), dict)
_STRING, _CHECKSUM = struct.Struct("<II"), struct.Struct("<I")
TRIED, SLOW_READ = 16, 0.5e-3  # records that are read to see how quick that is, and the seconds of one from which on it is slow
READERS = 8  # threads, for file systems that answer slowly


class CommitLog:
    """The commit records of one archive."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._chunks = ChunkCodec(COMMIT, root.nodes[COMMIT])

    def key(self, shard: int) -> str:
        """Where the record of a shard lies in the store."""
        return self._chunks.key(shard)

    def encode(self, receipt: ShardReceipt) -> bytes:
        """A receipt as the object that commits its shard."""
        data = self._chunks.encode(receipt.shard, np.array([record_text(receipt)], dtype=object))
        assert data is not None, "a record is never empty"
        return data

    def read(self, shard: int) -> ShardReceipt | None:
        """The receipt of one shard, None while it is pending; raises ArchiveError when the record is damaged."""
        data = self._root.store.read_or_none(self.key(shard))
        if data is None:
            return None
        receipt = receipt_or_none(data)
        if receipt is None:
            raise self._damaged(shard)
        return receipt

    def committed(self) -> set[int]:
        """Shards that have a record, by one listing of a folder."""
        names = self._root.store.names(f"{COMMIT}/c")
        return {int(name) for name in names if name.isdecimal() and name == str(int(name))}

    def raw(self) -> dict[int, bytes]:
        """The object of every record, by shard, in order."""
        shards = sorted(shard for shard in self.committed() if shard < self._root.num_shards)
        begun = perf_counter()
        found = dict(self._read_raw(shards[:TRIED]))
        is_slow = perf_counter() - begun > TRIED * SLOW_READ
        rest, readers = shards[TRIED:], READERS if is_slow else 1  # where reading is quick, threads only wait for one another
        with ThreadPoolExecutor(readers) as pool:  # a stretch each: a task a record would cost more than reading it
            stretches = pool.map(self._read_raw, (rest[at::readers] for at in range(readers)))
            found.update(chain.from_iterable(stretches))
        return {shard: found[shard] for shard in shards}

    def read_each(self) -> dict[int, ShardReceipt | None]:
        """The receipt of every record, by shard, in order; None where the record is damaged."""
        return {shard: receipt_or_none(data) for shard, data in self.raw().items()}

    def read_all(self) -> list[ShardReceipt]:
        """Every receipt, in order of shards; raises ArchiveError naming the first record that is damaged."""
        receipts = self.read_each()
        for shard, receipt in receipts.items():
            if receipt is None:
                raise self._damaged(shard)
        return [receipt for receipt in receipts.values() if receipt is not None]

    def _damaged(self, shard: int) -> ArchiveError:
        return ArchiveError(f"commit record is damaged; see `latentray verify`: {self.key(shard)}")

    def _read_raw(self, shards: Iterable[int]) -> list[tuple[int, bytes]]:
        return [(shard, self._root.store.read(self.key(shard))) for shard in shards]


def committed_shards(path: AnyPath) -> set[int]:
    """The shards of an archive that are done, by one listing of a folder: quick for any number of shards."""
    return CommitLog(read_root(path)).committed()


def read_receipts(path: AnyPath) -> list[ShardReceipt]:
    """The commit record of every finished shard, in order; raises ArchiveError when one is damaged."""
    return CommitLog(read_root(path)).read_all()


def content_digest(receipts: list[ShardReceipt]) -> str:
    """One sha256 for all rows: of the canonical JSON of every object's sha256 by key (null where there is no object)."""
    merged = {key: entry and entry["sha256"] for receipt in receipts for key, entry in receipt.objects.items()}
    return sha256(canonical_json(merged))


def describe_object(data: bytes | None) -> dict[str, Any] | None:
    """What a record says of an object: its sha256 and size, or None where there is none."""
    return None if data is None else {"sha256": sha256(data), "bytes": len(data)}


def record_text(receipt: ShardReceipt) -> str:
    """A receipt as the JSON text that is stored."""
    record = asdict(receipt)
    record["failures"] = [{**asdict(failure), "status": failure.status.name.lower()} for failure in receipt.failures]
    return canonical_json(_plain(record)).decode()


def text_of(data: bytes) -> str:
    """The text of a record's object: one string as `vlen-utf8` has it (count, length, bytes) and a crc32c, all numbers little-endian.

    Read without Zarr, which takes 0.2 ms an object where this takes 2 us. Raises ValueError where the bytes are not those of one string.
    """
    if len(data) < _STRING.size + _CHECKSUM.size:
        raise ValueError("too short for a record")
    body = data[: -_CHECKSUM.size]
    count, length = _STRING.unpack_from(body)
    if _CHECKSUM.unpack(data[-_CHECKSUM.size :]) != (google_crc32c.value(body),) or (count, length) != (1, len(body) - _STRING.size):
        raise ValueError("not the bytes of a record")
    return str(body[_STRING.size :], "utf-8")


def parse_record(text: str) -> ShardReceipt:
    """The receipt of a stored record; raises ValueError, KeyError, TypeError or AttributeError when it is none."""
    record = json.loads(text)
    wrong = [name for name, kind in _KINDS.items() if not isinstance(record[name], kind)]
    if wrong or not all(isinstance(count, int) for count in record["rows"].values()):
        raise ValueError("a field has a value of another kind")
    for entry in record["objects"].values():
        if entry is not None and (not isinstance(entry["sha256"], str) or not isinstance(entry["bytes"], int)):
            raise ValueError("an object needs a sha256 and a size")
    record["failures"] = [Failure(**{**failure, "status": Status[failure["status"].upper()]}) for failure in record["failures"]]
    return ShardReceipt(**{name: record[name] for name in _FIELDS})


def receipt_or_none(data: bytes) -> ShardReceipt | None:
    """The receipt in a record's object, None where it is damaged."""
    try:
        return parse_record(text_of(data))
    except UNREADABLE:
        return None


def _plain(value: Any) -> Any:
    """JSON values: NumPy scalars become numbers, and figures that are not finite (a parity of an empty check, say) become null."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
