"""What a plan's digests are made of: ids and root-relative uris, so that moving a data set changes nothing and renaming a film does."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from urllib.parse import quote

VERSION = 1


def rows_bytes(sample_ids: Sequence[str], uris: Sequence[str], root: str) -> bytes:
    """The canonical bytes of consecutive rows: id, NUL, uri relative to `root`, NUL, for each. Neither can contain a NUL."""
    cells = [""] * (2 * len(uris) + 1)
    cells[0:-1:2] = sample_ids
    cells[1::2] = [_relative(uri, root) for uri in uris]
    return "\0".join(cells).encode()


def _relative(uri: str, root: str) -> str:
    if uri.startswith(root):
        return uri[len(root) :]
    escaped = "file://" + quote(root)  # a name that is not UTF-8 has an escaped uri below a root that needs no escape
    return "file:" + uri[len(escaped) :] if uri.startswith(escaped) else uri


def shard_digest(sample_ids: Sequence[str], uris: Sequence[str], root: str) -> str:
    """sha256, in hex, of the rows of one shard."""
    return hashlib.sha256(rows_bytes(sample_ids, uris, root)).hexdigest()


class PlanDigest:
    """Digests a plan while its rows stream by, in pieces of any size. Holds one shard's running hash."""

    def __init__(self, *, num_rows: int, shard_rows: int, root: str) -> None:
        self._shard_rows = shard_rows
        self._root = root
        self._plan = hashlib.sha256(f"latentray plan {VERSION}\n{num_rows} rows\n{shard_rows} rows a shard\n".encode())
        self._shard = hashlib.sha256()
        self._filled = 0  # rows of the running shard

    def add(self, sample_ids: Sequence[str], uris: Sequence[str]) -> None:
        """Takes the next rows."""
        at = 0
        while at < len(uris):
            end = min(at + self._shard_rows - self._filled, len(uris))
            self._shard.update(rows_bytes(sample_ids[at:end], uris[at:end], self._root))
            self._filled += end - at
            if self._filled == self._shard_rows:
                self._close_shard()
            at = end

    def hexdigest(self) -> str:
        """sha256 over version, number of rows, shard size and every shard's digest. Called once, after the last row."""
        if self._filled:
            self._close_shard()
        return self._plan.hexdigest()

    def _close_shard(self) -> None:
        self._plan.update(f"{self._shard.hexdigest()}\n".encode())
        self._shard = hashlib.sha256()
        self._filled = 0
