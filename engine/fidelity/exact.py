"""Layers without loss: the plane is coded exactly, and decoded again before it is believed."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from engine.errors import LayerError
from engine.fidelity.codestream import CODESTREAMS, decode_plane, encode_plane
from engine.fidelity.header import LayerInfo, pack
from engine.fidelity.heads import squeeze
from engine.fidelity.planes import describe, exact_step, from_plane, to_plane
from engine.fidelity.way import Way
from engine.records import FilmSamples

DIGEST_BYTES = 32
_EXACT = "jxl"  # for ways whose codec cannot be
_QUICK = 3
Coded = tuple[LayerInfo, bytes, np.ndarray[Any, Any]]  # header, body, and the samples that come back


def digest_of(samples: np.ndarray[Any, Any]) -> bytes:
    """sha256 of samples [H, W], row by row, little-endian."""
    return hashlib.sha256(np.ascontiguousarray(samples, dtype=samples.dtype.newbyteorder("<")).data).digest()


def exact_layer(film: FilmSamples, way: Way) -> bytes:
    """The whole layer of `exact_body`."""
    info, body, _ = exact_body(film, way)
    return pack(info, body)


def exact_body(film: FilmSamples, way: Way) -> Coded:
    """The samples bit for bit, with their digest. Raises LayerError where the codec does not give them back."""
    values = film.samples.astype(np.int32)
    offset, step = exact_step(values)
    plane, bits = to_plane(values, offset=offset, step=step)
    codec, effort = exact_codec(way)
    if (offset, step) == (0, 1):
        plane, bits = film.samples.astype(np.uint8 if film.bits <= 8 else np.uint16), film.bits
    code = encode_plane(codec, plane, bits, quality=None, effort=effort)
    if codec == _EXACT and effort >= CODESTREAMS[_EXACT].effort:
        # A film that has been JPEG 2000 before can be a tenth as large as it again; for one that has not, this adds a tenth of the time.
        other = encode_plane("j2k", plane, bits, quality=None, effort=0)
        codec, code = ("j2k", other) if len(other) < len(code) else (codec, code)
    info = LayerInfo("lossless", codec, plane_bits=bits, offset=offset, step=step, **describe(film))
    back = from_plane(decode_plane(codec, code, plane.shape, bits), info, None)
    digest = digest_of(film.samples)
    if back.dtype != film.samples.dtype or digest_of(back) != digest:
        raise LayerError(f"{codec} does not give back the samples that it was given")
    return info, digest + squeeze(codec, code), back


def exact_codec(way: Way) -> tuple[str, int]:
    """The way's codec and effort; those of JPEG XL where the way's cannot be exact: its quick ones where the way is quick."""
    if CODESTREAMS[way.codec].write_exact is None:
        return _EXACT, CODESTREAMS[_EXACT].effort if way.effort <= CODESTREAMS[way.codec].effort else _QUICK
    return way.codec, way.effort
