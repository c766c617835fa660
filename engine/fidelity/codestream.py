"""The picture codecs that a layer may be written with: one plane of unsigned samples in, a codestream out, and back."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np

from engine.errors import LayerError

Plane = np.ndarray[Any, Any]  # [H, W] uint8, or uint16 for more than 8 bits
_SOC = b"\xff\x4f\xff\x51"
_SSIZ = 42  # where a codestream of one component has the depth of its samples
_SPARE_BITS = 1.6  # a step of so many times the error that is aimed at costs under a hundredth of the bytes
_LEAST_BITS = 4


@dataclass(frozen=True, slots=True)
class Knob:
    """The quality setting of a lossy codec: it grows with quality, from `low` to `high`, in steps of `step`.

    `slope`: dB of PSNR a unit, roughly. `enough`: a film that beats its target by no more dB than this is not tried again.
    """

    low: float
    high: float
    step: float
    slope: float
    enough: float

    def snap(self, value: float) -> float:
        """The nearest setting there is."""
        return float(min(self.high, max(self.low, round(value / self.step) * self.step)))


@dataclass(frozen=True, slots=True)
class Codestream:
    """One codec. `write(plane, bits, quality, effort)`; `write_exact(plane, bits, effort)`; `read(data, out)` -> [H, W].

    `number` stands in layers and never changes its meaning. `effort`: what is usual (0: it has no choice).
    `out` is a plane as it ought to be, `size` what a codestream claims before it is decoded, None where that is left to `read`.
    """

    number: int
    most_bits: int
    read: Callable[[bytes, Plane], Plane]
    knob: Knob | None = None
    write: Callable[[Plane, int, float, int], bytes] | None = None
    write_exact: Callable[[Plane, int, int], bytes] | None = None
    effort: int = 0
    size: Callable[[bytes], tuple[int, int] | None] = lambda _: None


def encode_plane(name: str, plane: Plane, bits: int, *, quality: float | None, effort: int) -> bytes:
    """The codestream of a plane of `bits`-bit samples; without `quality` exact. One thread; the same bytes for the same plane."""
    codec = CODESTREAMS[name]
    if quality is None:
        assert codec.write_exact is not None
        return codec.write_exact(plane, bits, effort)
    assert codec.write is not None
    return codec.write(plane, bits, quality, effort)


def decode_plane(name: str, data: bytes, shape: tuple[int, int], bits: int) -> Plane:
    """The plane [H, W] of `bits` bits that `encode_plane` wrote.

    Raises LayerError for whatever a codec raises, and for a plane of another size.
    """
    codec = CODESTREAMS[name]
    # The checksum of these bytes is right, so this is a layer made to deceive, or a codec that lacks something: one error for all.
    try:
        claimed = codec.size(data)
        if claimed is not None and claimed != shape:
            raise LayerError(f"layer holds a picture of another size: {claimed[0]}x{claimed[1]}, not {shape[0]}x{shape[1]}")
        plane = codec.read(data, np.empty(shape, dtype=np.uint8 if bits <= 8 else np.uint16))
    except LayerError:
        raise
    except Exception as error:
        raise LayerError(f"layer cannot be decoded by {name}: {' '.join(str(error).split())[:120] or type(error).__name__}") from error
    if plane.shape != shape or plane.dtype != (np.uint8 if bits <= 8 else np.uint16):
        raise LayerError(f"layer holds another picture than it says: {'x'.join(map(str, plane.shape))} {plane.dtype}")
    return plane


def _siz(data: bytes) -> tuple[int, int] | None:
    """Height and width in the SIZ segment of a JPEG 2000 codestream."""
    if not data.startswith(_SOC) or len(data) < 40:
        raise LayerError("layer holds no JPEG 2000 codestream")
    x1, y1, x0, y0 = struct.unpack_from(">4I", data, 8)
    return y1 - y0, x1 - x0


def _ispe(data: bytes) -> tuple[int, int] | None:
    """Height and width in the `ispe` box of an AVIF file."""
    at = data.find(b"ispe", 0, 4096)
    if at < 0:
        raise LayerError("layer holds no AVIF file")
    width, height = struct.unpack_from(">II", data, at + 8)
    return height, width


def _write_avif(plane: Plane, bits: int, quality: float, effort: int) -> bytes:
    # Gray is written as three equal channels, since this binding writes one channel without loss only; the empty chroma costs a few bytes.
    colour = np.repeat(plane[..., None], 3, axis=2)
    level = round(100 * quality / 63)
    return bytes(imagecodecs.avif_encode(colour, level, speed=effort, pixelformat="420", bitspersample=bits, numthreads=1))


def _read_avif(data: bytes, out: Plane) -> Plane:
    return np.ascontiguousarray(imagecodecs.avif_decode(data, numthreads=1)[..., 1])


def _write_jxl(plane: Plane, bits: int, quality: float, effort: int) -> bytes:
    distance = 10 ** (-quality / 20)
    return bytes(imagecodecs.jpegxl_encode(plane, distance=distance, effort=effort, bitspersample=bits, usecontainer=False, numthreads=1))


def _write_jxl_exact(plane: Plane, bits: int, effort: int) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(plane, lossless=True, effort=effort, bitspersample=bits, usecontainer=False, numthreads=1))


def _write_j2k(plane: Plane, bits: int, quality: float, effort: int) -> bytes:
    """JPEG 2000 at about `quality` dB.

    The coder writes every bit of the plane before it drops what the rate leaves no room for, so bits far below the error are taken away
    first, which halves its time; then the header is told that the samples are as deep as they were. Rounding is up and down by turns,
    like a chessboard: no gray is lost, and what is added is the finest detail, which the coder drops.
    """
    error = (2**bits - 1) / 10 ** (quality / 20)  # root mean square, in samples
    spare = min(max(0, int(math.log2(max(1.0, _SPARE_BITS * error)))), bits - _LEAST_BITS)
    if spare > 0:
        plane = _coarser(plane, bits, spare)
    code = bytearray(_call_j2k(plane, bits - max(0, spare), quality, reversible=False))
    code[_SSIZ] = bits - 1
    return bytes(code)


def _coarser(plane: Plane, bits: int, spare: int) -> Plane:
    """The plane without its `spare` lowest bits, rounded up and down by turns."""
    half = np.full(plane.shape[1], 2 ** (spare - 1), dtype=np.uint16 if bits <= 8 else np.uint32)
    half[1::2] -= 1
    coarse: Plane = np.empty(plane.shape, dtype=half.dtype)
    np.add(plane[::2], half, out=coarse[::2])
    np.add(plane[1::2], 2**spare - 1 - half, out=coarse[1::2])
    np.right_shift(coarse, spare, out=coarse)
    np.minimum(coarse, 2 ** (bits - spare) - 1, out=coarse)
    return coarse.astype(np.uint8 if bits - spare <= 8 else np.uint16)


def _write_j2k_exact(plane: Plane, bits: int, effort: int) -> bytes:
    return _call_j2k(plane, bits, 0, reversible=True)


def _call_j2k(plane: Plane, bits: int, level: float, *, reversible: bool) -> bytes:
    resolutions = max(1, min(8, int(min(plane.shape)).bit_length()))  # eight where the film is large enough
    options: dict[str, Any] = {"codecformat": "j2k", "bitspersample": bits, "resolutions": resolutions, "numthreads": 1}
    return bytes(imagecodecs.jpeg2k_encode(plane, level, reversible=reversible, **options))  # type: ignore[arg-type]  # any number of dB


CODESTREAMS: dict[str, Codestream] = {
    "jxl": Codestream(
        1,
        16,
        lambda data, out: np.asarray(imagecodecs.jpegxl_decode(data, numthreads=1, out=out)),
        knob=Knob(-28, 40, 0.1, 0.5, 0.25),
        write=_write_jxl,
        write_exact=_write_jxl_exact,
        effort=7,
    ),
    "j2k": Codestream(
        2,
        16,
        lambda data, out: np.asarray(imagecodecs.jpeg2k_decode(data, numthreads=1, out=out)),
        knob=Knob(10, 110, 0.02, 1.0, 0.26),
        write=_write_j2k,
        write_exact=_write_j2k_exact,
        size=_siz,
    ),
    "avif": Codestream(3, 12, _read_avif, knob=Knob(0, 62, 1, 0.22, 0.45), write=_write_avif, effort=6, size=_ispe),
}
NAMES = {codec.number: name for name, codec in CODESTREAMS.items()}
