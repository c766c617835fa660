"""One array's chunks as bytes, encoded and decoded in memory, as Zarr does it: no old object is read, so a torn one cannot harm."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from zarr.buffer.cpu import Buffer
from zarr.storage import MemoryStore

from engine.archive.plain_chunk import PlainChunk
from engine.archive.root import Root, canonical_json

Column = np.ndarray[Any, Any]


class ChunkCodec:
    """The chunks of one array along its first dimension; the other dimensions are never cut.

    `path` is the array's place in the store, `document` its metadata.
    """

    def __init__(self, path: str, document: Mapping[str, Any]) -> None:
        self._path = path
        self._metadata = Buffer.from_bytes(canonical_json(document))
        self._length, *row_shape = document["shape"]
        self.row_shape: tuple[int, ...] = tuple(row_shape)
        self._rows = int(document["chunk_grid"]["configuration"]["chunk_shape"][0])
        self._plain = PlainChunk(document) if PlainChunk.suits(document) else None
        self.dtype_name = str(document["data_type"])
        self.column_dtype = np.dtype(object if self.dtype_name in ("string", "bytes") else self.dtype_name)

    def key(self, index: int) -> str:
        """Where the object of chunk `index` lies in the store, as in `latent/c/3/0/0`."""
        return f"{self._path}/{self._local_key(index)}"

    def encode(self, index: int, values: Column) -> bytes | None:
        """The object of one chunk, or None where every value is fill and Zarr keeps no object."""
        if self._plain is not None:
            return self._plain.encode(values)
        objects, array = self._scratch
        array[self._slice(index)] = values
        written = objects.pop(self._local_key(index), None)  # gone again, so that the next attempt reads nothing either
        return None if written is None else bytes(written.to_bytes())

    def decode(self, index: int, data: bytes | None) -> Column:
        """The values of one chunk; None stands for an absent object. Raises ValueError or RuntimeError where the bytes are damaged."""
        return self.decode_all({index: data}, first=index, last=index)

    def decode_all(self, chunks: Mapping[int, bytes | None], *, first: int, last: int) -> Column:
        """The values of chunks `first` to `last`; those that `chunks` lacks are fill."""
        objects: dict[str, Any] = {"zarr.json": self._metadata}
        objects |= {self._local_key(index): Buffer.from_bytes(data) for index, data in chunks.items() if data is not None}
        return np.asarray(self._open(objects, "r")[slice(self._slice(first).start, self._slice(last).stop)])

    @cached_property
    def _scratch(self) -> tuple[dict[str, Any], Any]:
        """A store in memory without chunks, and the array on it: opening one costs as much as encoding a small chunk."""
        objects: dict[str, Any] = {"zarr.json": self._metadata}
        return objects, self._open(objects, "r+")

    def _open(self, objects: dict[str, Any], mode: Any) -> Any:
        return zarr.open_array(MemoryStore(objects, read_only=mode == "r"), mode=mode, zarr_format=3)

    def _local_key(self, index: int) -> str:
        return "/".join(["c", str(index), *("0" for _ in self.row_shape)])

    def _slice(self, index: int) -> slice:
        return slice(index * self._rows, min((index + 1) * self._rows, self._length))


def column_codecs(root: Root) -> dict[str, ChunkCodec]:
    """A codec for every array over `sample`, by name. `status` and `latent` come first: whoever publishes a shard claims it with them.

    The status of two attempts that differ in which rows failed differs, and it always has an object; only when it is equal can
    anything else be published. So no attempt can leave an object where the one that is committed has none.
    """
    names = sorted(root.columns, key=lambda name: (name != "status", name != "latent", name))
    return {name: ChunkCodec(name, root.columns[name]) for name in names}
