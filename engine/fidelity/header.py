"""The first 32 bytes of a layer: what kind it is, how it is coded, and how its numbers become samples; read before anything is decoded."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

from engine.errors import LayerError
from engine.fidelity.codestream import CODESTREAMS, NAMES

Kind = Literal["lossless", "max-error", "film", "residual"]
MAGIC = b"LRF"
VERSION = 1
# magic, version, kind, codec, bits | bits of the plane << 5, flags, height, width, offset, step, black, white, crc32 of all else
_LAYOUT = struct.Struct("<3sBBBHBxHHiHffI")
HEADER_BYTES = _LAYOUT.size
MAX_PIXELS = 100_000_000
_KINDS: tuple[Kind, ...] = ("lossless", "max-error", "film", "residual")
_DTYPES = ("|u1", "<u2", "<i2")
_REGION, _ROUNDED, _BASE = 4, 8, 16  # flags beside the two bits of the dtype


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """What a layer says of itself. Samples are offset + step * plane (+ prediction), cut to the range of `bits`.

    `bits` of the film, `plane_bits` of the coded plane; `dtype` of the samples ("|u1", "<u2", "<i2"); `black`, `white` as in FilmSamples.
    `has_region`: a part of the film follows exactly. `has_base`: the plane corrects a lossy layer that follows. `is_rounded`: the film's
    samples were not the file's own integers.
    """

    kind: Kind
    codec: str
    height: int
    width: int
    bits: int
    plane_bits: int
    dtype: str
    offset: int
    step: int
    black: float
    white: float
    has_region: bool = False
    is_rounded: bool = False
    has_base: bool = False

    @property
    def needs_prediction(self) -> bool:
        """Whether the reconstruction of the film's code is needed to decode it."""
        return self.kind == "residual"

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest value of a sample."""
        return (-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1) if self.dtype == "<i2" else (0, 2**self.bits - 1)


def pack(info: LayerInfo, body: bytes) -> bytes:
    """The whole layer: header and body, with the checksum of both."""
    flags = _DTYPES.index(info.dtype) | _REGION * info.has_region | _ROUNDED * info.is_rounded | _BASE * info.has_base
    depths = info.bits | info.plane_bits << 5
    fields = (MAGIC, VERSION, _KINDS.index(info.kind), CODESTREAMS[info.codec].number, depths, flags, info.height, info.width)
    head = _LAYOUT.pack(*fields, info.offset, info.step, info.black, info.white, 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) + body


def unpack(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[LayerInfo, bytes]:
    """Header and body of a layer. Raises LayerError for one that is cut, changed, of an unknown version, or too large."""
    if len(data) < HEADER_BYTES:
        raise LayerError(f"layer is truncated: {len(data)} bytes")
    magic, version, kind, codec, depths, flags, height, width, offset, step, black, white, checksum = _LAYOUT.unpack_from(data)
    if magic != MAGIC:
        raise LayerError("not a fidelity layer")
    if version != VERSION:
        raise LayerError(f"layer is of a version that is not read: {version}")
    body = data[HEADER_BYTES:]
    if zlib.crc32(body, zlib.crc32(data[: HEADER_BYTES - 4])) != checksum:
        raise LayerError("layer is damaged: its checksum is wrong")
    bits, plane_bits = depths & 31, depths >> 5
    is_known = kind < len(_KINDS) and codec in NAMES and flags & 3 < len(_DTYPES)
    if not is_known or not 1 <= bits <= 16 or not 1 <= plane_bits <= 17 or not step or black == white:
        raise LayerError("layer is damaged: its header makes no sense")
    if not 1 <= height * width <= max_pixels:
        raise LayerError(f"layer claims no pixels or more than {max_pixels}: {height}x{width}")
    info = LayerInfo(
        _KINDS[kind], NAMES[codec], height, width, bits, plane_bits, _DTYPES[flags & 3], offset, step, black, white,
        has_region=bool(flags & _REGION), is_rounded=bool(flags & _ROUNDED), has_base=bool(flags & _BASE),
    )  # fmt: skip
    return info, body
