"""Some bytes of a blosc chunk, by decompressing only the blocks that they lie in: a row is a small part of its chunk."""

from __future__ import annotations

import struct
from typing import Any

from numcodecs import blosc

_HEADER = struct.Struct("<BBBBIII")  # version, zstd's version, flags, bytes of a number, bytes, bytes of a block, compressed bytes
_NUMBER = struct.Struct("<I")
_STORED, _NOT_SPLIT = 0x02, 0x10  # flags: bytes as they are, without blocks; one stream a block


def decompress(chunk: memoryview, out: Any) -> None:
    """Fills `out`, an array, with the bytes of a chunk. Raises ValueError or RuntimeError where they are damaged, or not as many."""
    size = _header(chunk)[4]
    if size != out.nbytes:
        raise ValueError(f"chunk must have {out.nbytes} bytes: {size}")
    blosc.decompress(chunk, out)


def decompress_part(chunk: memoryview, span: slice, *, size: int) -> bytes:
    """A span of the `size` bytes that a chunk holds. Raises ValueError or RuntimeError where it is damaged, or holds not as many."""
    _, _, flags, _, held, block_bytes, _ = _header(chunk)
    if held != size or not block_bytes:
        raise ValueError(f"chunk must have {size} bytes: {held}")
    first, last, _ = span.indices(size)
    if flags & _STORED:
        return bytes(chunk[_HEADER.size + first : _HEADER.size + last])
    blocks = range(first // block_bytes, -(-last // block_bytes))
    start = blocks[0] * block_bytes
    decoded = _block(chunk, blocks[0]) if len(blocks) == 1 else b"".join(_block(chunk, at) for at in blocks)
    return decoded[first - start : last - start]


def _block(chunk: memoryview, at: int) -> bytes:
    """One block, handed to blosc as a chunk of its own: a header, where the block begins, and its bytes."""
    version, inner, flags, number, size, block_bytes, _ = _header(chunk)
    here = min(block_bytes, size - at * block_bytes)
    if here < block_bytes:
        flags |= _NOT_SPLIT  # the last block never is where it is shorter
    try:
        (start,) = _NUMBER.unpack_from(chunk, _HEADER.size + _NUMBER.size * at)
        end = start + _NUMBER.size + _NUMBER.unpack_from(chunk, start)[0]
    except struct.error as error:
        raise ValueError("block lies outside its chunk") from error
    own = _HEADER.size + _NUMBER.size
    head = _HEADER.pack(version, inner, flags, number, here, here, own + end - start) + _NUMBER.pack(own)
    decoded: bytes = blosc.decompress(b"".join((head, chunk[start:end])))
    if len(decoded) != here:
        raise ValueError(f"block must have {here} bytes: {len(decoded)}")
    return decoded


def _header(chunk: memoryview) -> tuple[int, ...]:
    if len(chunk) < _HEADER.size:
        raise ValueError("too short for a chunk")
    return _HEADER.unpack_from(chunk)
