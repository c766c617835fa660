"""Sample ids by the million: which rows may share one, in sixteen bytes a row, and the ids that a plan file lists."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq


class IdLedger:
    """Takes ids as they come and tells where one may occur again. It keeps a 64-bit hash of each, so equal ids are always found."""

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._rows = array("Q")

    def add(self, ids: Sequence[str], *, first_row: int) -> None:
        """Takes the ids of consecutive rows."""
        self._hashes.extend(int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") for name in ids)
        self._rows.extend(range(first_row, first_row + len(ids)))

    def suspects(self) -> list[list[int]]:
        """Groups of rows whose ids have one hash. They are equal but for a chance of 1 in 10^5 at ten million rows: compare them."""
        hashes = np.array(self._hashes, dtype=np.uint64)
        values, counts = np.unique(hashes, return_counts=True)
        groups: dict[int, list[int]] = {}
        for at in np.flatnonzero(np.isin(hashes, values[counts > 1])):
            groups.setdefault(self._hashes[at], []).append(self._rows[at])
        return list(groups.values())


def plan_ids(path: Path, *, shard_rows: int) -> Iterator[list[str]]:
    """The ids of a plan file, in lists of `shard_rows` (the last one may be shorter), holding one row group at a time."""
    with pq.ParquetFile(path) as file:
        waiting: list[str] = []
        for batch in file.iter_batches(columns=["sample_id"]):
            waiting += batch.column(0).to_pylist()
            while len(waiting) >= shard_rows:
                yield waiting[:shard_rows]
                waiting = waiting[shard_rows:]
        if waiting:
            yield waiting
