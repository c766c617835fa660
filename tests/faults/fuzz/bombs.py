"""Small files that ask for enormous memory or endless time. Run as a program, it decodes those of a folder and says what they cost."""

from __future__ import annotations

import io
import json
import struct
import sys
import time
import zlib
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage, struct_rusage

import imagecodecs
import numpy as np
import tifffile
from PIL import Image
from pydicom.encaps import encapsulate

from engine.config import DecodeConfig
from engine.decode.choose import build_decoder
from engine.recipe import PixelRecipe
from engine.records import ImageRef
from tests.decode.film_files import chunk, deflated, dicom, encapsulated, png, ramp, saved, tiff

SIDE = 60_000
LIMITS = DecodeConfig(decoder="cpu", threads=1, max_bytes=24 * 2**20, max_pixels=9_000_000, max_seconds=1.5)
_TOO_MUCH = bytes(LIMITS.max_bytes + 2**20)
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def bombs() -> dict[str, bytes]:
    """Every bomb by name. None may be read, or cost more than the film that its header honestly claims."""
    zeros = zlib.compress(bytes(64 * 2**20), 9)
    gray_png = png(ramp(), 8)
    big_jpeg = _resized_jpeg(SIDE, SIDE)
    return {
        "png-claims": _SIGNATURE + _ihdr(SIDE, SIDE) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b""),
        "png-inflates": _SIGNATURE + _ihdr(40, 40) + chunk(b"IDAT", _zeros(256 * 2**10)) + chunk(b"IEND", b""),
        "png-large-inflates": _SIGNATURE + _ihdr(3000, 3000) + chunk(b"IDAT", _zeros(4 * 2**20)) + chunk(b"IEND", b""),
        "png-two-headers": gray_png[:33] + _ihdr(SIDE, SIDE) + gray_png[33:],
        "png-text": gray_png[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(7_900_000), 9)) * 900 + gray_png[33:],
        "png-colour-profile": gray_png[:33] + chunk(b"iCCP", b"a\0\0" + zeros) + gray_png[33:],
        "jpeg-claims": big_jpeg,
        "jpeg-hidden-header": _hidden_header(big_jpeg),
        "a-film": gray_png,
        "jpeg-scans": _many_scans(),
        "tiff-claims": _tiff_with(tiff(ramp()), {256: SIDE, 257: SIDE}),
        "tiff-inflates": _tiff_strip(zeros),
        "tiff-holds-huge-jpeg": _tiff_strip(big_jpeg, compression=7),
        "tiff-holds-huge-jp2": _tiff_strip(_resized_j2k(SIDE, SIDE), compression=34712),
        "tiff-directories-in-circles": _circle(),
        "tiff-directories": _many_directories(300_000),
        "jp2-claims": _resized_j2k(SIDE, SIDE),
        "jp2-tiles": _many_tiles(),
        "dicom-claims": dicom(ramp(), Rows=SIDE, Columns=SIDE),
        "dicom-holds-huge-j2k": encapsulated(dicom(ramp()), encapsulate([_resized_j2k(SIDE, SIDE)]), "1.2.840.10008.1.2.4.90"),
        "dicom-holds-huge-jpeg": encapsulated(dicom(ramp()), encapsulate([big_jpeg]), "1.2.840.10008.1.2.4.50"),
        "dicom-inflates": deflated(dicom(ramp(12), bits=12), body=_TOO_MUCH),
        "dicom-inflates-without-preamble": deflated(dicom(ramp(12), bits=12), body=_TOO_MUCH)[132:],
        "dicom-inflates-twice": _deflated_twice(),
        "dicom-elements": _many_elements(2_000_000),
        "dicom-fragments": _many_fragments(2_000_000),
        "dicom-runs": encapsulated(dicom(ramp()), encapsulate([_rle(20 * 2**20)]), "1.2.840.10008.1.2.5"),
    }


def _zeros(size: int) -> bytes:
    """About `size` bytes of deflated zeros, which inflate to a thousand times as much."""
    deflater = zlib.compressobj(9)
    first = deflater.compress(bytes(2**24)) + deflater.flush(zlib.Z_FULL_FLUSH)
    block = deflater.compress(bytes(2**24)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return first + block * (size // len(block)) + deflater.flush()


def _ihdr(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def _resized_jpeg(width: int, height: int) -> bytes:
    data = bytearray(saved(Image.fromarray(ramp()), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def _hidden_header(big: bytes) -> bytes:
    """A huge frame header behind a marker that has no length.

    Who takes the next two bytes for its length steps over it, into a comment that holds a modest frame header.
    """
    at = big.index(b"\xff\xc0")
    frame = big[at : at + 13]
    modest = frame[:5] + struct.pack(">HH", *ramp().shape) + frame[9:]
    filler = bytes(int.from_bytes(frame[:2], "big") - len(frame) - 4)
    comment = b"\xff\xfe" + struct.pack(">H", 2 + len(filler) + len(modest)) + filler + modest
    return big[:2] + b"\xff\x01" + frame + comment + big[2:at] + big[at + 13 :]


def _many_scans() -> bytes:
    """As many pixels as LIMITS allow, in as many scans as a JPEG may have: each is a pass over all of them."""
    side = int(LIMITS.max_pixels**0.5)
    data = saved(Image.fromarray(np.zeros((side, side), np.uint8)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * 490 + b"\xff\xd9"


def _tiff_with(data: bytes, values: dict[int, int]) -> bytes:
    changed = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for code, value in values.items():
            at = file.pages[0].tags[code].offset
            changed[at : at + 12] = struct.pack("<HHII", code, 4, 1, value)
    return bytes(changed)


def _tiff_strip(strip: bytes, *, compression: int = 8, height: int = 40, width: int = 56) -> bytes:
    """A page of one strip, written by hand."""
    tags = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 273: 8, 277: 1, 278: height, 279: len(strip)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + struct.pack("<H", len(tags)) + entries + bytes(4)


def _circle() -> bytes:
    """A page, a hundred and fifty empty directories, and then the last two of them for ever."""
    page = _tiff_strip(bytes(40 * 56), compression=1)
    at = len(page)
    links = [at + 6 * index for index in range(150)]
    chain = b"".join(struct.pack("<HI", 0, after) for after in [*links[1:], links[-2]])
    return page[:-4] + struct.pack("<I", links[0]) + chain


def _many_directories(count: int) -> bytes:
    page = _tiff_strip(bytes(40 * 56), compression=1)
    links = [len(page) + 6 * index for index in range(count)]
    chain = b"".join(struct.pack("<HI", 0, after) for after in [*links[1:], 0])
    return page[:-4] + struct.pack("<I", links[0]) + chain


def _resized_j2k(width: int, height: int) -> bytes:
    data = bytearray(imagecodecs.jpeg2k_encode(ramp(), codecformat="j2k", reversible=True, level=0))
    data[8:16] = struct.pack(">II", width, height)
    data[24:32] = struct.pack(">II", width, height)
    return bytes(data)


def _many_tiles() -> bytes:
    """2,900 x 2,900 in tiles of one pixel."""
    data = bytearray(_resized_j2k(2900, 2900))
    data[24:32] = struct.pack(">II", 1, 1)
    return bytes(data)


def _deflated_twice() -> bytes:
    """A deflated data set that itself begins as a deflated file."""
    inner = deflated(dicom(ramp(12), bits=12), body=_TOO_MUCH)
    return deflated(dicom(ramp(12), bits=12), body=inner)


def _many_elements(count: int) -> bytes:
    """Private elements without values, then the film."""
    film = dicom(ramp())
    at = 144 + struct.unpack_from("<I", film, 140)[0]
    return film[:at] + struct.pack("<HH2sH", 3, 0x1010, b"LO", 0) * count + film[at:]


def _many_fragments(count: int) -> bytes:
    """One frame in fragments of nothing."""
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * count
    return encapsulated(dicom(ramp()), items, "1.2.840.10008.1.2.4.90")


def _rle(size: int) -> bytes:
    """Run-length coding in runs of nothing but themselves: the byte that means "do nothing", `size` times."""
    return struct.pack("<16I", 1, 64, *[0] * 14) + b"\x80" * size


def main() -> None:
    """A line of JSON for each file of a folder: what became of it, processor seconds, and the most MiB that this process has held."""
    decoder = build_decoder(PixelRecipe(resolution=32), LIMITS, read=lambda uri: Path(uri).read_bytes(), batch_size=1, film_size=None)
    for path in sorted(Path(sys.argv[1]).iterdir()):
        begun = time.process_time()
        (batch,) = decoder.batches([ImageRef(0, path.name, str(path))])
        _say(path.name, batch.failures[0].reason if batch.failures else "", time.process_time() - begun, getrusage(RUSAGE_SELF))
    decoder.close()
    children = getrusage(RUSAGE_CHILDREN)
    _say("children", "", children.ru_utime + children.ru_stime, children)


def _say(name: str, reason: str, seconds: float, usage: struct_rusage) -> None:
    print(json.dumps({"name": name, "reason": reason, "seconds": seconds, "peak": usage.ru_maxrss / 1024}), flush=True)


if __name__ == "__main__":
    main()
