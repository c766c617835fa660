"""PNG: every colour type and depth; a file that is cut anywhere, or fails a checksum, is refused."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import partial

import imagecodecs
import numpy as np

from engine.decode.film import Film, Header, Plain, Samples, SealedFilm, to_gray, white_level
from engine.decode.orientation import exif_orientation, upright, upright_size
from engine.errors import DecodeError
from engine.recipe import PixelRecipe

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _RGB, _PALETTE = 0, 2, 3
_PLAIN: dict[tuple[int, int], Plain] = {(_GRAY, 8): "gray8", (_GRAY, 16): "gray16", (_RGB, 8): "rgb8", (_RGB, 16): "rgb16"}
_MAX_CHUNKS = 2**20  # a file of 512 MiB in the usual chunks of 8 KiB has 2^16
_MUCH = 2 * 2**20  # compressed pixels, which can inflate to a thousand times as much: 4 seconds, for libpng reads on to the end
_SPARE = 2**16  # beyond what deflate adds to pixels that it cannot compress
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # a pixel, by colour type
_WANTED = (b"IHDR", b"sBIT", b"eXIf", b"tRNS")
_READ = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS")  # what makes pixels
_HARMLESS = (*_READ, b"sBIT", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"bKGD", b"tIME")


def open_png(data: bytes) -> SealedFilm:
    """Reads the chunks up to IEND, without inflating anything. Raises DecodeError where the file ends early."""
    chunks = _walk(data)
    first = chunks.first
    if next(iter(first), b"") != b"IHDR" or len(first[b"IHDR"]) != 13:
        raise DecodeError("PNG has no header chunk")
    width, height, depth, colour = struct.unpack_from(">IIBB", first[b"IHDR"])
    row = width * depth * _SAMPLES.get(colour, 1) // 8 + 8
    if not 1 <= chunks.packed <= 1.02 * height * row + _SPARE:
        raise DecodeError(f"PNG has too few or too many bytes of pixels: {chunks.packed}")
    significant = first.get(b"sBIT", b"")
    bits = min(significant[0], depth) if significant and significant[0] and colour != _PALETTE else depth
    bits = 8 if colour == _PALETTE else bits
    orientation = exif_orientation(first.get(b"eXIf", b""))
    is_ordinary = orientation == 1 and bits == depth and b"tRNS" not in first
    height, width = upright_size(height, width, orientation)
    plain = _PLAIN.get((colour, depth), "") if is_ordinary else ""
    header = Header("PNG", height, width, bits, plain=plain, is_risky=chunks.packed > _MUCH)
    return SealedFilm(data, header, partial(_read, data, chunks, depth=depth, bits=bits, orientation=orientation))


@dataclass(slots=True)
class _Chunks:
    """What a walk over a file finds: the first chunk of each kind that matters, where the chunks lie that make pixels (`spans`), whether
    there are none beside them that cost anything, and the bytes of compressed pixels."""

    first: dict[bytes, bytes] = field(default_factory=dict)
    spans: list[tuple[int, int]] = field(default_factory=list)
    is_harmless: bool = True
    packed: int = 0


def _walk(data: bytes) -> _Chunks:
    """All chunks up to IEND. The walk itself proves that the file is whole and its checksums right.

    The decoder would find a wrong checksum too, but it loses memory when it does, and a batch decoder loses its batch.
    """
    chunks = _Chunks()
    at = len(SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if at + 12 > len(data):
            raise DecodeError("PNG is truncated")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise DecodeError("PNG is truncated")
        is_critical = kind[:1].isupper()
        if is_critical and imagecodecs.deflate_crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise DecodeError("PNG is damaged: a checksum is wrong")
        if kind == b"IDAT":
            chunks.packed += length
        elif kind in _WANTED and kind not in chunks.first:
            chunks.first[kind] = data[at + 8 : end - 4]
        chunks.is_harmless &= kind in _HARMLESS
        if kind in _READ:
            chunks.spans.append((at, end))
        if kind == b"IEND":
            return chunks
        at = end
    raise DecodeError(f"PNG has more than {_MAX_CHUNKS} chunks")


def _decode(data: bytes, chunks: _Chunks) -> Samples:
    """Samples of the chunks that make pixels. libpng would inflate and keep all texts and profiles: a thousand, of 8 MB each."""
    if not chunks.is_harmless:
        data = SIGNATURE + b"".join(data[start:end] for start, end in chunks.spans)
    try:
        return np.asarray(imagecodecs.png_decode(data))
    except Exception as error:  # its text is read from where libpng's words no longer are, so it is whatever lies there now
        raise DecodeError("PNG pixels are damaged") from error


def _read(data: bytes, chunks: _Chunks, recipe: PixelRecipe, *, depth: int, bits: int, orientation: int) -> Film:
    gray = to_gray(upright(_decode(data, chunks), orientation))
    if depth < 8:
        # The decoder stretches 1, 2 and 4 bits (and looks palettes up) to 8, so white is 255 for the file's own depth.
        return Film(gray, 255 * white_level(bits, recipe) / (2**bits - 1))
    if bits < depth and not recipe.bits and int(np.max(gray)) > 2**bits - 1:
        # The standard scales samples up to the full depth and keeps the first depth in sBIT; many writers of 12-bit films do not scale.
        return Film(gray, float(2**depth - 1))
    return Film(gray, white_level(bits, recipe))
