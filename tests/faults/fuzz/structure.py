"""Damage that knows the format: chunks with right checksums, tags, segments, boxes and elements that say something else."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pydicom
from pydicom.encaps import encapsulate, get_frame

from tests.decode.film_files import chunk
from tests.faults.fuzz.damage import ANY_FORMAT, NUMBERS, flip_bits

Random = np.random.Generator
Damage = Callable[[bytes, Random], bytes]

_CHUNKS = (b"PLTE", b"tRNS", b"sBIT", b"eXIf", b"iCCP", b"gAMA", b"acTL", b"fcTL", b"fdAT", b"zTXt", b"IDAT", b"IHDR", b"QQQQ")
_TAGS = (254, 256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 320, 322, 330, 339)
# every compression that a TIFF can name and some library may try
_COMPRESSIONS = (*range(1, 9), 32773, 32809, 32909, 33003, 33005, 34676, 34677, 34712, 34887, 34892, 34925, 34934, 50000, 50001, 50002)
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), 0xF7)
_SYNTAXES = (b"", b".1", b".2", b".4.50", b".4.51", b".4.57", b".4.70", b".4.80", b".4.90", b".4.91", b".4.201", b".5")


def damage_png(data: bytes, random: Random) -> bytes:
    """One chunk changed, dropped, doubled, moved or added, its checksum right; or other pixels under the same header."""
    chunks = _png_chunks(data)
    at = int(random.integers(len(chunks)))
    kind, body = chunks[at]
    how = int(random.integers(7))
    if how == 0:
        chunks[at] = kind, ANY_FORMAT[int(random.integers(len(ANY_FORMAT)))](body, random) if body else random.bytes(4)
    elif how == 1:
        del chunks[at]
    elif how == 2:
        chunks.insert(int(random.integers(len(chunks))), (kind, body))
    elif how == 3:
        header = bytearray(chunks[0][1].ljust(13, b"\0"))
        _put_one_of(header, ((0, 4), (4, 4), (8, 1), (9, 1), (10, 1), (11, 1), (12, 1)), random)
        chunks[0] = chunks[0][0], bytes(header)
    elif how == 4:
        name = _CHUNKS[int(random.integers(len(_CHUNKS)))]
        chunks.insert(int(random.integers(1, len(chunks) + 1)), (name, random.bytes(int(random.integers(64)))))
    else:
        chunks = _other_pixels(chunks, random)
    return data[:8] + b"".join(chunk(kind, body) for kind, body in chunks)


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def _other_pixels(chunks: list[tuple[bytes, bytes]], random: Random) -> list[tuple[bytes, bytes]]:
    """The inflated rows damaged (filters, too few, too many) and deflated again."""
    rows = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    rows = ANY_FORMAT[int(random.integers(len(ANY_FORMAT)))](rows, random)
    kept = [part for part in chunks if part[0] != b"IDAT"]
    return [*kept[:-1], (b"IDAT", zlib.compress(rows)), kept[-1]]


def _put_one_of(data: bytearray, fields: tuple[tuple[int, int], ...], random: Random) -> None:
    """One of NUMBERS, or a random one, in one of the big-endian fields (offset, size)."""
    at, size = fields[int(random.integers(len(fields)))]
    number = NUMBERS[int(random.integers(len(NUMBERS)))] if random.random() < 0.7 else int(random.integers(2**32))
    data[at : at + size] = (number % 256**size).to_bytes(size, "big")


def damage_tiff(data: bytes, random: Random) -> bytes:
    """One entry of the first directory with another tag, type, count, value or offset; or a directory that follows itself."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    head, entry, start = ("Q", 20, 8) if is_big else ("I", 12, 4)
    damaged = bytearray(data)
    (directory,) = struct.unpack_from(order + head, data, start)
    (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, directory)
    first = directory + (8 if is_big else 2)
    at = first + entry * int(random.integers(min(count, 64)))
    number = NUMBERS[int(random.integers(len(NUMBERS)))] if random.random() < 0.6 else int(random.integers(len(data) + 8))
    how = int(random.integers(8))
    if how == 0:
        struct.pack_into(order + "H", damaged, at, int(random.choice(_TAGS)))
    elif how == 1:
        struct.pack_into(order + "H", damaged, at + 2, int(random.integers(0, 20)))
    elif how == 2:
        struct.pack_into(order + head, damaged, at + 4, number)
    elif how == 3:
        target = (0, start, directory, number)[int(random.integers(4))]
        struct.pack_into(order + head, damaged, first + entry * count, target)
    elif how == 4:  # another compression over the same bytes
        _set_tag(damaged, order, head, entry, first, count, 259, int(random.choice(_COMPRESSIONS)))
    else:
        struct.pack_into(order + head, damaged, at + 4 + struct.calcsize(head), number)
    return bytes(damaged)


def _set_tag(data: bytearray, order: str, head: str, entry: int, first: int, count: int, tag: int, value: int) -> None:
    for at in range(first, first + entry * min(count, 64), entry):
        if struct.unpack_from(order + "H", data, at)[0] == tag:
            struct.pack_into(order + "H", data, at + 4 + struct.calcsize(head), value)


def damage_jpeg(data: bytes, random: Random) -> bytes:
    """One segment with another marker, length, size or table; dropped, doubled or moved."""
    segments, scan = _jpeg_segments(data)
    if not segments:
        return flip_bits(data, random)
    at = int(random.integers(len(segments)))
    marker, body = segments[at]
    how = int(random.integers(7))
    if how == 0:
        del segments[at]
    elif how == 1:
        segments.insert(int(random.integers(len(segments))), (marker, body))
    elif how == 2:
        segments[at] = (int(random.integers(0xC0, 0xFF)), body)
    elif how == 3:
        segments.insert(at, (0xDD, int(random.integers(65536)).to_bytes(2, "big")))
    elif how == 4:
        segments[at] = marker, ANY_FORMAT[int(random.integers(len(ANY_FORMAT)))](body, random)[:65533]
    else:
        segments = [(mark, _other_frame(inside, random) if mark in _FRAMES else inside) for mark, inside in segments]
    return data[:2] + b"".join(struct.pack(">BBH", 0xFF, mark, len(inside) + 2) + inside for mark, inside in segments) + scan


def _other_frame(body: bytes, random: Random) -> bytes:
    header = bytearray(body.ljust(9, b"\0"))
    _put_one_of(header, ((0, 1), (1, 2), (3, 2), (5, 1), (6, 1), (7, 1), (8, 1)), random)
    return bytes(header)


def _jpeg_segments(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Segments up to and with the first scan's header, and all that follows."""
    segments: list[tuple[int, bytes]] = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        (length,) = struct.unpack_from(">H", data, at + 2)
        segments.append((marker, data[at + 4 : at + 2 + length]))
        at += 2 + length
        if marker == 0xDA:
            break
    return segments, data[at:]


def damage_jp2(data: bytes, random: Random) -> bytes:
    """A box with another length or name, or a marker segment of the codestream with other fields."""
    start = data.find(b"\xff\x4f\xff\x51")
    boxes, stream = bytearray(data[: max(start, 0)]), bytearray(data[max(start, 0) :])
    if boxes and random.random() < 0.3:
        at = 0
        places = []
        while at + 8 <= len(boxes):
            places.append(at)
            at += max(struct.unpack_from(">I", boxes, at)[0], 8)
        at = places[int(random.integers(len(places)))]
        _put_one_of(boxes, ((at, 4), (at + 4, 4), (at + 8, 4), (at + 12, 2), (at + 14, 2)), random)
        return bytes(boxes + stream)
    segments = [(2, 47)]  # SIZ
    for marker in (b"\xff\x52", b"\xff\x5c", b"\xff\x90", b"\xff\x93", b"\xff\x64"):  # COD, QCD, SOT, SOD, COM
        at = stream.find(marker)
        if at >= 0:
            segments.append((at + 2, 14))
    at, length = segments[int(random.integers(len(segments)))]
    size = (1, 2, 4)[int(random.integers(3))]
    _put_one_of(stream, tuple((at + offset, size) for offset in range(length)), random)
    return bytes(boxes + stream)


def damage_dicom(data: bytes, random: Random) -> bytes:
    """One element with another value, another transfer syntax, or a frame that is damaged inside its own codestream."""
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    meta = getattr(dataset, "file_meta", None)
    how = int(random.integers(4))
    if how == 0 and meta is not None and "TransferSyntaxUID" in meta:
        return _replace_syntax(data, b"1.2.840.10008.1.2" + _SYNTAXES[int(random.integers(len(_SYNTAXES)))])
    if how == 1 and meta is not None and getattr(meta, "TransferSyntaxUID", pydicom.uid.ImplicitVRLittleEndian).is_encapsulated:
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
        inside = damage_jpeg if frame.startswith(b"\xff\xd8") else damage_jp2 if frame.startswith(b"\xff\x4f") else flip_bits
        dataset.PixelData = encapsulate([inside(frame, random)])
    else:
        _other_element(dataset, random)
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=False)
    return out.getvalue()


def _other_element(dataset: pydicom.Dataset, random: Random) -> None:
    names = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel", "PixelRepresentation", "PlanarConfiguration")
    if random.random() < 0.6:
        number = NUMBERS[int(random.integers(len(NUMBERS)))] % 65536 if random.random() < 0.5 else int(random.integers(0, 34))
        setattr(dataset, names[int(random.integers(len(names)))], number)
        return
    texts = {
        "NumberOfFrames": ("0", "1", "2", "70000", "2147483647", "-1"),
        "PhotometricInterpretation": ("MONOCHROME1", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "PALETTE COLOR", "ARGB", ""),
        "WindowWidth": ("0", "-1", "1e300", "nan", "inf", "1\\2", ""),
        "WindowCenter": ("0", "1e308", "nan", "", "3\\4"),
        "RescaleSlope": ("0", "1e300", "nan", "inf", "-1e-300"),
        "RescaleIntercept": ("1e308", "nan", "-inf", "x"),
        "VOILUTFunction": ("SIGMOID", "LINEAR_EXACT", "OTHER"),
    }
    name = tuple(texts)[int(random.integers(len(texts)))]
    setattr(dataset, name, texts[name][int(random.integers(len(texts[name])))])


def _replace_syntax(data: bytes, uid: bytes) -> bytes:
    """Another transfer syntax over the same bytes, padded or cut to the length of the old one."""
    at = data.find(b"\x02\x00\x10\x00UI", 128)
    if at < 0:
        return data
    (length,) = struct.unpack_from("<H", data, at + 6)
    return data[: at + 8] + uid.ljust(length, b"\0")[:length] + data[at + 8 + length :]


BY_FORMAT: dict[str, Damage] = {"PNG": damage_png, "JPEG": damage_jpeg, "TIFF": damage_tiff, "JP2": damage_jp2, "DICOM": damage_dicom}
