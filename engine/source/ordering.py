"""Puts any number of rows in order and finds equal ids, on disk: SQLite's external sort, in a temporary database that cleans up itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType

from engine.errors import SourceError

Row = tuple[bytes | str | None, ...]  # order key (bytes), sample id, uri, labels
_CACHE_KIB = 128 * 1024


class RowOrder:
    """Rows that are filled in once, then read back ordered by key, byte by byte, and by id where keys are equal.

    Small sets stay in memory; larger ones spill to the system's temporary folder (TMPDIR), about twice the bytes of the rows.
    """

    def __init__(self, *, num_labels: int) -> None:
        self._columns = ["key BLOB", "id TEXT", "uri TEXT", *(f"label{at} TEXT" for at in range(num_labels))]
        # An empty name is SQLite's private database on disk: it holds file descriptors only, so nothing is left even after SIGKILL.
        self._db = sqlite3.connect("", isolation_level=None)

    def __enter__(self) -> RowOrder:
        with _disk_errors():
            for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.execute(f"CREATE TABLE film ({', '.join(self._columns)})")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._db.close()

    def fill(self, rows: Iterable[Row]) -> int:
        """Takes all rows and returns how many there were."""
        with _disk_errors():
            self._db.execute("BEGIN")
            self._db.executemany(f"INSERT INTO film VALUES ({', '.join('?' * len(self._columns))})", rows)
            self._db.execute("COMMIT")
            return int(self._db.execute("SELECT COUNT(*) FROM film").fetchone()[0])

    def duplicates(self, *, limit: int) -> list[tuple[str, int]]:
        """Some ids that more than one row has, in order, with how many have it."""
        with _disk_errors():
            found = self._db.execute("SELECT id, COUNT(*) FROM film GROUP BY id HAVING COUNT(*) > 1 LIMIT ?", (limit,))
            return [(str(sample_id), int(count)) for sample_id, count in found]

    def in_order(self) -> Iterator[Row]:
        """All rows in order."""
        with _disk_errors():  # no LIMIT here: SQLite then sorts in a B-tree, six times slower than its external sort
            rows = self._db.execute("SELECT * FROM film ORDER BY key, id")
            yield from iter(rows.fetchone, None)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise SourceError(f"rows cannot be put in order; free some space or point TMPDIR at a larger disk: {error}") from None
