"""The forms in which codes can be stored: what comes back of them, and how many bytes a film each takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.rates.code_tables import to_numbers
from benchmarks.rates.static_coder import LENGTH_BYTES, StaticTables, decode, encode
from engine.archive.chunks import ChunkCodec
from engine.archive.schema import ArchiveSpec, static_objects
from engine.errors import ArchiveError

F4, F2, ROUNDED, I1, CODED = "f4", "f2", "f2 rounded", "i1, a scale a film", "i1 coded"
READABLE = (F4, F2, ROUNDED)  # by any reader of Zarr, as the numbers that they are
_SCALE_BYTES = 4

Codes = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredForm:
    """`codes` [n, d] float32 as they come back. `num_bytes`: a film, as they lie in an archive's chunk or, where coded, of each stream.

    `raw_bytes`: a film before any chunk is compressed.
    """

    name: str
    codes: Codes
    num_bytes: tuple[float, ...]
    raw_bytes: float


def stored_forms(codes: Codes, *, step: float, tables: StaticTables | None) -> Iterator[StoredForm]:
    """Codes [n, d] in each form; without tables those alone that need no step.

    `i1`: numbers of a byte that count steps of a film's largest number by 127. `i1 coded`: multiples of `step`, which the codec knows, as
    the static coder writes them; the length of each stream is in its bytes.
    """
    n, d = codes.shape
    yield StoredForm(name=F4, codes=codes, num_bytes=(chunk_bytes(codes) / n,), raw_bytes=4 * d)
    half = codes.astype(np.float16)
    yield StoredForm(name=F2, codes=half.astype(np.float32), num_bytes=(chunk_bytes(half) / n,), raw_bytes=2 * d)
    if tables is not None:
        numbers = to_numbers(codes, step)
        rounded = numbers.astype(np.float32) * np.float32(step)
        half = rounded.astype(np.float16)
        yield StoredForm(name=ROUNDED, codes=half.astype(np.float32), num_bytes=(chunk_bytes(half) / n,), raw_bytes=2 * d)
    scales = np.maximum(np.abs(codes).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) / np.float32(127)
    bytes_each = np.rint(codes / scales).astype(np.int8)
    size = (chunk_bytes(bytes_each) / n + _SCALE_BYTES,)
    yield StoredForm(name=I1, codes=bytes_each * scales, num_bytes=size, raw_bytes=d + _SCALE_BYTES)
    if tables is not None:
        yield coded_form(codes, step=step, tables=tables)


def coded_form(codes: Codes, *, step: float, tables: StaticTables) -> StoredForm:
    """Codes [n, d] as streams of the static coder. Raises ArchiveError where they do not come back as they went in."""
    numbers = to_numbers(codes, step)
    streams = encode(numbers, tables)
    again = decode(streams, tables)
    if not np.array_equal(again, numbers):
        raise ArchiveError(f"coded numbers came back as others, films: {int((again != numbers).any(axis=1).sum())}")
    sizes = tuple(float(len(stream) + LENGTH_BYTES) for stream in streams)
    return StoredForm(name=CODED, codes=again.astype(np.float32) * np.float32(step), num_bytes=sizes, raw_bytes=sum(sizes) / len(sizes))


def chunk_bytes(values: np.ndarray[Any, Any]) -> int:
    """The bytes of the object that an archive keeps for values [n, d] of type f4, f2 or i1, as one chunk of its codes."""
    n, d = values.shape
    size = values.dtype.itemsize
    spec = ArchiveSpec(
        num_rows=n,
        shard_rows=n,
        latent_dims=("layer", "channel"),
        latent_shape=(1, d),
        latent_dtype="f4",
        fingerprint_parts={"codec": {"name": "any"}, "shard_rows": n, "plan": ""},
        plan_digest="",
        plan_sha256="",
        software={},
    )
    document: dict[str, Any] = json.loads(static_objects(spec, None)["latent/zarr.json"])
    document |= {"data_type": values.dtype.name} | ({"fill_value": 0} if values.dtype.kind == "i" else {})
    for each in document["codecs"]:
        if each["name"] == "blosc":  # both are of numbers of 4 bytes there
            each["configuration"] |= {"typesize": size, "blocksize": each["configuration"]["blocksize"] * size // 4}
    stored = ChunkCodec("latent", document).encode(0, values.reshape(n, 1, d))
    return 0 if stored is None else len(stored)
