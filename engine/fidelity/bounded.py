"""Layers with a largest error: bins as wide as the error allows, of the film itself or of what a lossy picture leaves."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np

from engine.errors import LayerError
from engine.fidelity.codestream import CODESTREAMS, decode_plane, encode_plane
from engine.fidelity.exact import Coded, exact_codec
from engine.fidelity.header import LayerInfo, pack
from engine.fidelity.heads import squeeze
from engine.fidelity.lossy import LossyCoder
from engine.fidelity.planes import describe, from_plane, max_error_of, to_plane
from engine.fidelity.way import Way
from engine.records import FilmSamples

_BASE = struct.Struct("<II")  # bytes of the base, crc32 of its samples


def bounded_body(film: FilmSamples, way: Way, largest: int) -> Coded:
    """Samples of which none is off by more than `largest`: bins of 2 * largest + 1 values, coded exactly.

    With a codec that is only lossy the film is first coded at the way's `start`, and the bins are those of what it misses. AVIF is such a
    codec, and its decoding is defined to the last bit; should another machine's differ after all, the checksum of its samples says so.
    Raises LayerError where the codec does not keep the error.
    """
    values = film.samples.astype(np.int32)
    base, expected = b"", None
    if CODESTREAMS[way.codec].write_exact is None:
        coder = LossyCoder(film, replace(way, residual=False))
        trial = coder.attempt(way.start)
        picture = pack(coder.info, trial.code)
        base = _BASE.pack(len(picture), checksum(trial.back)) + picture
        expected = trial.back.astype(np.int32)
        values = values - expected
    low, step = int(values.min()), 2 * largest + 1
    # Bins around 0, so that what is nearly right costs nothing.
    offset = low if expected is None else step * ((low - largest) // step)
    plane, bits = to_plane(values, offset=offset, step=step)
    codec, effort = exact_codec(way)
    info = LayerInfo("max-error", codec, plane_bits=bits, offset=offset, step=step, has_base=bool(base), **describe(film))
    code = encode_plane(codec, plane, bits, quality=None, effort=effort)
    back = from_plane(decode_plane(codec, code, plane.shape, bits), info, expected)
    if max_error_of(film, back) > largest:
        raise LayerError(f"{codec} does not keep the largest error: {largest}")
    return info, base + squeeze(codec, code), back


def split_base(body: bytes) -> tuple[bytes, int, bytes]:
    """The base's layer, the checksum of its samples, and what follows. Raises LayerError where it is cut."""
    if len(body) < _BASE.size or len(body) < _BASE.size + _BASE.unpack_from(body)[0]:
        raise LayerError("layer is damaged: its base is cut")
    length, expected = _BASE.unpack_from(body)
    return body[_BASE.size : _BASE.size + length], expected, body[_BASE.size + length :]


def checksum(samples: np.ndarray[Any, Any]) -> int:
    """crc32 of samples [H, W], row by row, little-endian."""
    return zlib.crc32(np.ascontiguousarray(samples, dtype=samples.dtype.newbyteorder("<")).data)
