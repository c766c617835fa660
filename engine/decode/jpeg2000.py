"""JPEG 2000: .jp2 files and raw codestreams, gray or RGB, up to 16 bits."""

from __future__ import annotations

import struct
from functools import partial

import imagecodecs

from engine.decode.film import Film, Header, Plain, SealedFilm, to_gray, white_level
from engine.errors import DecodeError
from engine.recipe import PixelRecipe

SIGNATURE_FILE = b"\0\0\0\x0cjP  \r\n\x87\n"
SIGNATURE_CODESTREAM = b"\xff\x4f\xff\x51"
_PLAIN: dict[tuple[int, int], Plain] = {(1, 8): "gray8", (1, 16): "gray16", (3, 8): "rgb8", (3, 16): "rgb16"}
_SYCC = 18
_MAX_BOXES = 4096


def read_size(codestream: bytes) -> tuple[int, int, list[tuple[int, int, int]]]:
    """Height, width and (Ssiz, XRsiz, YRsiz) of each component, from the SIZ segment that opens every codestream."""
    if not codestream.startswith(SIGNATURE_CODESTREAM):
        raise DecodeError("JPEG 2000 has no codestream")
    x1, y1, x0, y0 = struct.unpack_from(">4I", codestream, 8)
    (count,) = struct.unpack_from(">H", codestream, 40)
    if not 1 <= count <= 4:
        raise DecodeError(f"JPEG 2000 does not have 1 to 4 components: {count}")
    return y1 - y0, x1 - x0, [struct.unpack_from(">3B", codestream, 42 + 3 * i) for i in range(count)]


def open_jpeg2000(data: bytes) -> SealedFilm:
    """Finds the codestream and reads its size. Raises DecodeError for signed, subsampled or more than 16-bit samples."""
    start, is_ordinary = (0, True) if data.startswith(SIGNATURE_CODESTREAM) else _find_codestream(data)
    height, width, components = read_size(data[start : start + 64])
    if any(component != components[0] for component in components):
        raise DecodeError("JPEG 2000 components differ in depth or sampling")
    depth, *sampling = components[0]
    bits = (depth & 0x7F) + 1
    if depth & 0x80 or bits > 16 or sampling != [1, 1]:
        raise DecodeError("JPEG 2000 samples are signed, subsampled or deeper than 16 bits")
    header = Header("JPEG 2000", height, width, bits, plain=_PLAIN.get((len(components), bits), "") if is_ordinary else "", is_risky=True)
    return SealedFilm(data, header, partial(_read, data, bits=bits))


def _find_codestream(data: bytes) -> tuple[int, bool]:
    """Offset of the codestream in a .jp2 file, and whether its samples mean gray or RGB as they stand (no palette box)."""
    at, is_ordinary = 0, True
    for _ in range(_MAX_BOXES):
        if at + 16 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        if kind == b"jp2c":
            return at + head, is_ordinary
        if kind == b"jp2h":
            inside = data[at + head : at + length]
            is_ordinary = b"pclr" not in inside
            _refuse_sycc(inside)
        if length < head:  # 0: the box reaches to the end, so no codestream follows
            break
        at += length
    raise DecodeError("JPEG 2000 is truncated: it has no codestream")


def _refuse_sycc(boxes: bytes) -> None:
    at = boxes.find(b"colr")
    if at >= 0 and boxes[at + 4 : at + 5] == b"\x01" and struct.unpack_from(">I", boxes, at + 7)[0] == _SYCC:
        raise DecodeError("JPEG 2000 in sYCC colour is not read")


def _read(data: bytes, recipe: PixelRecipe, *, bits: int) -> Film:
    return Film(to_gray(imagecodecs.jpeg2k_decode(data)), white_level(bits, recipe))
