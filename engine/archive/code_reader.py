"""The quick door to an archive's codes: straight from its objects, in threads, without Zarr. Tests hold it equal to what Zarr reads."""

from __future__ import annotations

import math
import os
import struct
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import google_crc32c
import numpy as np

from engine.archive.blosc_block import decompress, decompress_part
from engine.archive.chunks import Column
from engine.archive.folder_store import WHOLE
from engine.archive.root import AnyPath, read_root
from engine.archive.store import Store
from engine.errors import ArchiveError

_CHECKSUM_BYTES = 4
_WHOLE = google_crc32c.value(bytes(_CHECKSUM_BYTES))  # of any bytes that are followed by their own crc32c: no bytes have 0
_PLACE = struct.Struct("<QQ")  # of an inner chunk in its shard: offset and bytes, all ones where there is none
_ABSENT = 2**64 - 1
_MOST_THREADS, _BYTES_WORTH_A_THREAD = 16, 2**22
_BYTES_OF_NEIGHBOURS = 2**23  # for one thread: a huge page that two fill at once is cleared by both, which took a seventh of a read
_Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Found = TypeVar("Found")


def open_codes(path: AnyPath) -> CodeReader:
    """The codes of an archive, to read by row or all at once. Raises ArchiveError as `open_archive` does."""
    return CodeReader(path)


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the codes lie in their objects: rows of a shard and of an inner chunk, and whether the object is one plain chunk."""

    shard_rows: int
    inner_rows: int
    is_plain: bool


class CodeReader:
    """`latent` of an archive: `shape` [N, *code] and `dtype`; `reader[row]` is one code, `read()` all of them, in threads.

    Values, checks and fill are those of Zarr: every byte that is read is under a crc32c, rows without a code are NaN, also those of pending
    shards. May be shared by threads. Of a large shard, a row's inner chunk alone is read.
    """

    def __init__(self, path: AnyPath) -> None:
        root = read_root(path)
        node = root.columns["latent"]
        self._store: Store = root.store
        self._layout = _layout(node)
        self._suffix = "/0" * (len(node["shape"]) - 1)
        self.shape: tuple[int, ...] = tuple(node["shape"])
        self.dtype: np.dtype[Any] = np.dtype(node["data_type"]).newbyteorder("<")
        self._room = _Room()
        self._row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        self._index_bytes = self._layout.shard_rows // self._layout.inner_rows * _PLACE.size + _CHECKSUM_BYTES

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int) -> Column:
        """One code, [*code]. Raises IndexError for a row that there is not, ArchiveError where its object is damaged."""
        shard, at = divmod(range(len(self))[row], self._layout.shard_rows)
        inner, at = divmod(at, self._layout.inner_rows)
        span = slice(at * self._row_bytes, (at + 1) * self._row_bytes)
        size = self._layout.inner_rows * self._row_bytes

        def decode() -> Column:
            chunk = self._inner_chunk(shard, inner)
            if chunk is None:
                return np.full(self.shape[1:], np.nan, dtype=self.dtype)
            return np.frombuffer(bytearray(decompress_part(chunk, span, size=size)), dtype=self.dtype).reshape(self.shape[1:])

        return self._checked(decode)

    def read(self, rows: Sequence[int] | None = None) -> Column:
        """The codes of `rows`, in their order, or of all: [n, *code]. Raises IndexError and ArchiveError as for one row."""
        if rows is None:
            return self._all()
        wanted = [range(len(self))[row] for row in rows]
        out = np.empty((len(wanted), *self.shape[1:]), dtype=self.dtype)
        by_chunk = sorted(range(len(wanted)), key=lambda place: wanted[place])
        groups = [list(places) for _, places in groupby(by_chunk, key=lambda place: self._chunk_of(wanted[place]))]

        def fill(places: list[int]) -> None:
            if len(places) == 1:
                out[places[0]] = self[wanted[places[0]]]
                return
            shard, inner = self._chunk_of(wanted[places[0]])
            first = shard * self._layout.shard_rows + inner * self._layout.inner_rows
            out[places] = self._decoded(self._inner_chunk(shard, inner))[[wanted[place] - first for place in places]]

        self._in_threads(fill, groups, rows_each=self._layout.inner_rows)
        return out

    def _all(self) -> Column:
        out = np.empty(self.shape, dtype=self.dtype)
        shard_rows, inner_rows = self._layout.shard_rows, self._layout.inner_rows

        def fill(shard: int) -> None:
            for inner, chunk in enumerate(self._inner_chunks(shard)):
                first = shard * shard_rows + inner * inner_rows
                part = out[first : first + inner_rows]
                if chunk is not None and len(part) == inner_rows:
                    decompress(chunk, part)
                else:  # the last one is padded with fill
                    part[...] = self._decoded(chunk)[: len(part)]

        self._in_threads(fill, range(-(-len(self) // shard_rows)), rows_each=shard_rows)
        return out

    def _chunk_of(self, row: int) -> tuple[int, int]:
        shard, at = divmod(row, self._layout.shard_rows)
        return shard, at // self._layout.inner_rows

    def _decoded(self, chunk: memoryview | None) -> Column:
        values = np.empty((self._layout.inner_rows, *self.shape[1:]), dtype=self.dtype)
        if chunk is None:
            values[...] = np.nan
        else:
            decompress(chunk, values)
        return values

    def _inner_chunks(self, shard: int) -> list[memoryview | None]:
        """The inner chunks of a shard, checked, None for those that are fill; its object is read once."""
        data = self._object(shard)
        if data is None:
            return [None] * (self._layout.shard_rows // self._layout.inner_rows)
        return [_checked_bytes(data)] if self._layout.is_plain else [_placed(data, place) for place in self._places(data)]

    def _inner_chunk(self, shard: int, inner: int) -> memoryview | None:
        """One inner chunk, checked, None where it is fill; of its shard's object only the index and the chunk are read."""
        if self._layout.is_plain:
            return self._inner_chunks(shard)[0]
        index = self._object(shard, slice(-self._index_bytes, None))
        if index is None:
            return None
        offset, size = self._places(index)[inner]
        if offset == _ABSENT:
            return None
        chunk = self._object(shard, slice(offset, offset + size))
        return None if chunk is None else _checked_bytes(chunk)

    def _object(self, shard: int, part: slice = WHOLE) -> _Bytes | None:
        """The object of a shard, in room that this thread's next one takes: fresh memory for each costs more than reading it."""
        data = self._store.read_into(self._key(shard), self._room, part)
        return None if data is None else np.frombuffer(data, dtype=np.uint8)

    def _places(self, data: _Bytes) -> list[tuple[int, int]]:
        """Offset and bytes of each inner chunk, from the index at the end of a shard's object."""
        if len(data) < self._index_bytes:
            raise ValueError("too short for a shard")
        return list(_PLACE.iter_unpack(_checked_bytes(data[-self._index_bytes :])))

    def _key(self, shard: int) -> str:
        return f"latent/c/{shard}{self._suffix}"

    def _in_threads(self, fill: Callable[[Any], None], parts: Sequence[Any], *, rows_each: int) -> None:
        """Calls `fill` with each part, for which so many rows are decompressed; neighbours are filled by one thread."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        bytes_each = rows_each * self._row_bytes
        threads = min(_MOST_THREADS, cores, 1 + len(parts) * bytes_each // _BYTES_WORTH_A_THREAD)
        together = max(1, min(_BYTES_OF_NEIGHBOURS // bytes_each, -(-len(parts) // threads)))

        def fill_some(first: int) -> None:
            for part in parts[first : first + together]:
                fill(part)

        if threads == 1:
            self._checked(lambda: list(map(fill, parts)))
            return
        with ThreadPoolExecutor(threads) as pool:
            self._checked(lambda: list(pool.map(fill_some, range(0, len(parts), together))))

    def _checked(self, decode: Callable[[], Found]) -> Found:
        try:
            return decode()
        except (ValueError, RuntimeError) as error:
            raise ArchiveError("the archive is damaged, and `latentray verify` names the object; array latent") from error


def _placed(data: _Bytes, place: tuple[int, int]) -> memoryview | None:
    offset, size = place
    return None if offset == _ABSENT else _checked_bytes(data[offset : offset + size])


def _checked_bytes(data: _Bytes) -> memoryview:
    """What stands before the crc32c of some bytes, not copied."""
    if google_crc32c.value(data) != _WHOLE:
        raise ValueError("the checksum is another")
    return data.data[:-_CHECKSUM_BYTES]


class _Room(threading.local):
    """Memory of one thread, as large as the largest object that it has read."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, dtype=np.uint8)

    def __call__(self, size: int) -> memoryview:
        if len(self._bytes) < size:
            self._bytes = np.empty(size, dtype=np.uint8)
        return self._bytes.data[:size]


def _layout(node: dict[str, Any]) -> _Layout:
    """Raises ArchiveError for codes that are not encoded as FORMAT.md has them."""
    rows = int(node["chunk_grid"]["configuration"]["chunk_shape"][0])
    codecs, inner_rows = node["codecs"], rows
    if codecs[0]["name"] == "sharding_indexed":
        settings = codecs[0]["configuration"]
        codecs, inner_rows = settings["codecs"], int(settings["chunk_shape"][0])
    if [codec["name"] for codec in codecs] != ["bytes", "blosc", "crc32c"]:
        raise ArchiveError(f"codes are encoded in a way that is not of this format: {', '.join(codec['name'] for codec in codecs)}")
    return _Layout(shard_rows=rows, inner_rows=inner_rows, is_plain=codecs is node["codecs"])
