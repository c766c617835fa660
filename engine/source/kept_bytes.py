"""The bytes of films that two stages need: what the first was given is kept for the second, so that each film is read once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock


class KeptBytes:
    """Reads for two stages, from any number of threads, and holds at most `most_bytes`: the oldest are let go, and read anew if asked for.

    `read` gives the bytes of a uri; what it raises is raised.
    """

    def __init__(self, read: Callable[[str], bytes], *, most_bytes: int) -> None:
        self._read, self._most_bytes = read, most_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._num_bytes, self._lock = 0, Lock()

    def first(self, uri: str) -> bytes:
        """The bytes behind a uri, read now and kept."""
        data = self._read(uri)
        with self._lock:
            self._let_go(uri)
            self._kept[uri] = data
            self._num_bytes += len(data)
            while self._num_bytes > self._most_bytes:
                self._let_go(next(iter(self._kept)))
        return data

    def again(self, uri: str) -> bytes:
        """The same bytes, which are not kept any longer; read where `first` did not, or they had to go."""
        with self._lock:
            data = self._let_go(uri)
        return self._read(uri) if data is None else data

    def _let_go(self, uri: str) -> bytes | None:
        data = self._kept.pop(uri, None)
        self._num_bytes -= len(data or b"")
        return data
