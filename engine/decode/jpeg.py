"""JPEG: baseline, extended and progressive in 8 and 12 bits, lossless, JPEG-LS; damage that libjpeg only warns of is refused."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import partial

import imagecodecs
import numpy as np
import simplejpeg

from engine.decode.film import Film, Header, Plain, Samples, SealedFilm, to_gray, white_level
from engine.decode.orientation import exif_orientation, upright, upright_size
from engine.errors import DecodeError
from engine.recipe import PixelRecipe

SIGNATURE = b"\xff\xd8\xff"
_SOS, _EOI = 0xDA, b"\xff\xd9"
_DCT = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_PROGRESSIVE, _LOSSLESS, _JPEG_LS = 0xC2, 0xC3, 0xF7
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {_JPEG_LS}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})  # none of them has a place before the first scan
_MAX_SCANS = 500  # a small progressive file can ask for thousands of passes over all its pixels
_MUCH_WORK = 500_000_000  # pixels times scans; a radiograph in the usual ten scans stays far below
_PLAIN: dict[int, Plain] = {1: "gray8", 3: "rgb8"}


@dataclass(frozen=True, slots=True)
class Frame:
    """The frame header of a codestream, and the two application segments that change its pixels."""

    process: int  # the SOF marker's second byte
    bits: int
    height: int
    width: int
    components: int
    exif: bytes = b""
    is_adobe: bool = False


def read_frame(data: bytes) -> Frame:
    """Walks the segments of a codestream up to its first scan. Raises DecodeError where there is no frame header on the way."""
    frame, exif, is_adobe = None, b"", False
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise DecodeError("JPEG segments are damaged")
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        # A decoder that steps over such a marker without looking for a length would find another frame header than is found here.
        if marker in _WITHOUT_LENGTH or length < 2:
            raise DecodeError("JPEG segments are damaged")
        segment = data[at + 4 : at + 2 + length]
        if marker in _FRAMES and frame is None:
            bits, height, width, components = struct.unpack_from(">BHHB", segment)
            frame = (marker, bits, height, width, components)
        elif marker == 0xE1 and segment.startswith(b"Exif\0\0") and not exif:
            exif = segment[6:]
        elif marker == 0xEE and segment.startswith(b"Adobe"):
            is_adobe = True
        elif marker == _SOS:
            break
        at += 2 + length
    if frame is None:
        raise DecodeError("JPEG is truncated: it has no frame header")
    return Frame(*frame, exif=exif, is_adobe=is_adobe)


def is_whole(data: bytes) -> bool:
    """Whether the codestream ends with its end-of-image marker, zero padding aside."""
    return data.rstrip(b"\0").endswith(_EOI)


def open_jpeg(data: bytes) -> SealedFilm:
    """Reads the frame header; refuses what has no gray meaning and files built to take for ever."""
    frame = read_frame(data)
    if frame.components not in (1, 3, 4):
        raise DecodeError(f"JPEG has neither 1, 3 nor 4 components: {frame.components}")
    scans = data.count(b"\xff\xda") if frame.process == _PROGRESSIVE else 1
    if scans > _MAX_SCANS:
        raise DecodeError(f"JPEG has more than {_MAX_SCANS} scans")
    orientation = exif_orientation(frame.exif)
    is_ordinary = frame.process in _DCT and frame.bits == 8 and orientation == 1 and is_whole(data)
    height, width = upright_size(frame.height, frame.width, orientation)
    plain = _PLAIN.get(frame.components, "") if is_ordinary else ""
    # Libraries other than libjpeg-turbo's 8-bit one read the rest, and that one too can be kept busy.
    is_risky = frame.process not in _DCT or frame.bits != 8 or scans * height * width > _MUCH_WORK
    header = Header("JPEG", height, width, frame.bits, plain=plain, is_risky=is_risky)
    return SealedFilm(data, header, partial(_read, data, frame=frame, orientation=orientation))


def _read(data: bytes, recipe: PixelRecipe, *, frame: Frame, orientation: int) -> Film:
    gray = to_gray(upright(decode_codestream(data, frame), orientation))
    return Film(gray, white_level(frame.bits, recipe))


def decode_codestream(data: bytes, frame: Frame) -> Samples:
    """Samples [H, W] or [H, W, 3], uint8 or uint16, of any process that is read. Raises DecodeError or whatever the library raises."""
    if frame.process in _DCT and frame.bits == 8:
        colour = {1: "GRAY", 3: "RGB", 4: "CMYK"}[frame.components]
        samples: Samples = simplejpeg.decode_jpeg(data, colour, strict=True)
        return _rgb_of_cmyk(samples, is_inverted=frame.is_adobe) if colour == "CMYK" else samples
    if not is_whole(data):
        # These decoders fill what is missing and say nothing.
        raise DecodeError("JPEG is truncated: it has no end-of-image marker")
    if frame.components == 4:
        raise DecodeError(f"CMYK JPEG of this process is not read: SOF{frame.process - 0xC0}")
    if frame.process == _JPEG_LS:
        return np.asarray(imagecodecs.jpegls_decode(data))
    if frame.process in (*_DCT, _LOSSLESS):
        return np.asarray(imagecodecs.jpeg8_decode(data))
    raise DecodeError(f"JPEG process is not read (hierarchical or arithmetic): SOF{frame.process - 0xC0}")


def _rgb_of_cmyk(cmyk: Samples, *, is_inverted: bool) -> Samples:
    """RGB float32 in 0 to 255; Adobe's writers store 255 - ink."""
    ink_free = cmyk.astype(np.float32) if is_inverted else 255 - cmyk.astype(np.float32)
    return np.asarray(ink_free[..., :3] * ink_free[..., 3:] / 255)
