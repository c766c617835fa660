"""PNG: every colour type and depth; a file that is cut anywhere, or fails a checksum, is refused."""

from __future__ import annotations

import struct
from functools import partial

import imagecodecs
import numpy as np

from engine.decode.film import Film, Header, Plain, SealedFilm, to_gray, white_level
from engine.decode.orientation import exif_orientation, upright, upright_size
from engine.errors import DecodeError
from engine.recipe import PixelRecipe

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _RGB, _PALETTE = 0, 2, 3
_PLAIN: dict[tuple[int, int], Plain] = {(_GRAY, 8): "gray8", (_GRAY, 16): "gray16", (_RGB, 8): "rgb8", (_RGB, 16): "rgb16"}
_MAX_CHUNKS = 2**20  # a file of 512 MiB in the usual chunks of 8 KiB has 2^16


def open_png(data: bytes) -> SealedFilm:
    """Reads the chunks up to IEND, without inflating anything. Raises DecodeError where the file ends early."""
    chunks = _first_chunks(data)
    if len(chunks.get(b"IHDR", b"")) != 13:
        raise DecodeError("PNG has no header chunk")
    width, height, depth, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    significant = chunks.get(b"sBIT", b"")
    bits = min(significant[0], depth) if significant and significant[0] and colour != _PALETTE else depth
    bits = 8 if colour == _PALETTE else bits
    orientation = exif_orientation(chunks.get(b"eXIf", b""))
    is_ordinary = orientation == 1 and bits == depth and b"tRNS" not in chunks
    height, width = upright_size(height, width, orientation)
    header = Header("PNG", height, width, bits, plain=_PLAIN.get((colour, depth), "") if is_ordinary else "")
    return SealedFilm(data, header, partial(_read, data, depth=depth, bits=bits, orientation=orientation))


def _first_chunks(data: bytes) -> dict[bytes, bytes]:
    """The first chunk of each small kind that matters here; the walk itself proves that the file is whole and its checksums right.

    The decoder would find a wrong checksum too, but it loses memory when it does, and a batch decoder loses its batch.
    """
    wanted = (b"IHDR", b"sBIT", b"eXIf", b"tRNS")
    found: dict[bytes, bytes] = {}
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
        if kind == b"IEND":
            return found
        if kind in wanted and kind not in found:
            found[kind] = data[at + 8 : end - 4]
        at = end
    raise DecodeError(f"PNG has more than {_MAX_CHUNKS} chunks")


def _read(data: bytes, recipe: PixelRecipe, *, depth: int, bits: int, orientation: int) -> Film:
    gray = to_gray(upright(imagecodecs.png_decode(data), orientation))
    if depth < 8:
        # The decoder stretches 1, 2 and 4 bits (and looks palettes up) to 8, so white is 255 for the file's own depth.
        return Film(gray, 255 * white_level(bits, recipe) / (2**bits - 1))
    if bits < depth and not recipe.bits and int(np.max(gray)) > 2**bits - 1:
        # The standard scales samples up to the full depth and keeps the first depth in sBIT; many writers of 12-bit films do not scale.
        return Film(gray, float(2**depth - 1))
    return Film(gray, white_level(bits, recipe))
