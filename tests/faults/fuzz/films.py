"""Small valid films of every format, depth and photometric meaning that is read; the same generator state gives the same bytes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import pack_bits
from pydicom.uid import RLELossless

from tests.decode.film_files import chunk, deflated, dicom, encapsulated, lut_item, png, saved, tiff

Array = np.ndarray[Any, Any]
Random = np.random.Generator
FORMATS = ("PNG", "JPEG", "TIFF", "JP2", "DICOM")

# Each name is a way to compress a TIFF page, with the depths and colours that its writer takes.
_TIFF_GRAY16 = ("none", "lzw", "zlib", "packbits", "lzma", "zstd", "jpeg2000", "jpegxr", "jpegxl", "lerc", "png")
_TIFF_GRAY8 = (*_TIFF_GRAY16, "jpeg")
_TIFF_RGB8 = (*_TIFF_GRAY8, "webp")
_SYNTAXES = {
    "jpeg": "1.2.840.10008.1.2.4.50",
    "jpeg12": "1.2.840.10008.1.2.4.51",
    "lossless": "1.2.840.10008.1.2.4.70",
    "jpegls": "1.2.840.10008.1.2.4.80",
    "j2k": "1.2.840.10008.1.2.4.90",
    "j2k-lossy": "1.2.840.10008.1.2.4.91",
    "htj2k": "1.2.840.10008.1.2.4.201",
}


def make_film(kind: str, random: Random) -> bytes:
    """The bytes of one valid film of a format of FORMATS, at most 72 pixels a side."""
    return _MAKERS[kind](random)


def _pick(random: Random, *values: Any) -> Any:
    return values[int(random.integers(len(values)))]


def _gray(random: Random, bits: int) -> Array:
    """A film [H, W] with slopes, noise and a flat part, so that every coder has something to say; uint8 or uint16."""
    height, width = (int(side) for side in random.integers(1, 73, size=2))
    y, x = np.mgrid[0:height, 0:width]
    film = (np.sin(x / random.uniform(2, 20)) + np.cos(y / random.uniform(2, 20)) + 2) / 4
    film += random.normal(0, _pick(random, 0.0, 0.05), film.shape)
    film[: height // 3, : width // 3] = 1
    return np.rint(np.clip(film, 0, 1) * (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def _rgb(random: Random, bits: int = 8) -> Array:
    gray = _gray(random, bits)
    return np.ascontiguousarray(np.stack([gray, gray[::-1], gray[:, ::-1]], axis=-1))


def _png(random: Random) -> bytes:
    how = _pick(random, "depth", "depth", "sbit", "trns", "rgb8", "rgb16", "rgba", "la", "palette", "interlaced", "exif")
    if how == "depth":
        bits = _pick(random, 1, 2, 4, 8, 16)
        return png(_gray(random, bits), bits)
    if how == "sbit":
        bits = int(random.integers(9, 17))
        return png(_gray(random, bits), 16, extra=chunk(b"sBIT", bytes([bits])))
    if how == "trns":
        return png(_gray(random, 8), 8, extra=chunk(b"tRNS", b"\0\x05"))
    if how in ("rgb8", "rgb16"):
        return bytes(imagecodecs.png_encode(_rgb(random, int(how[3:]))))
    colour = Image.fromarray(_rgb(random))
    if how == "palette":
        return saved(colour.quantize(_pick(random, 2, 4, 16, 200)), "PNG")
    if how == "interlaced":
        return _interlaced(_gray(random, 8))
    if how == "exif":
        return saved(colour.convert("L"), "PNG", exif=_orientation(random))
    return saved(colour.convert(how.upper()), "PNG")


def _interlaced(gray: Array) -> bytes:
    """An Adam7 PNG of 8-bit samples; no writer at hand makes one."""
    passes = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
    parts = [gray[top::down, left::right] for top, down, left, right in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    header = struct.pack(">IIBBBBB", gray.shape[1], gray.shape[0], 8, 0, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _orientation(random: Random) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = int(random.integers(1, 9))
    return exif


def _jpeg(random: Random) -> bytes:
    how = _pick(random, "gray", "gray", "progressive", "rgb", "rgb", "cmyk", "exif", "12", "lossless", "ls", "ls-rgb")
    quality = int(random.integers(30, 100))
    if how == "12":
        return bytes(imagecodecs.jpeg8_encode(_gray(random, 12), quality, bitspersample=12))
    if how == "lossless":
        bits = _pick(random, 8, 10, 12, 14, 16)
        return bytes(imagecodecs.jpeg8_encode(_gray(random, bits), lossless=True, bitspersample=bits))
    if how == "ls":
        return bytes(imagecodecs.jpegls_encode(_gray(random, _pick(random, 8, 16)), level=_pick(random, 0, 0, 2)))
    if how == "ls-rgb":
        return bytes(imagecodecs.jpegls_encode(_rgb(random)))
    if how in ("gray", "progressive", "exif"):
        more = {"exif": _orientation(random)} if how == "exif" else {}
        return saved(Image.fromarray(_gray(random, 8)), "JPEG", quality=quality, progressive=how == "progressive", **more)
    colour = Image.fromarray(_rgb(random))
    if how == "cmyk":
        return saved(colour.convert("CMYK"), "JPEG", quality=quality)
    restarts = _pick(random, {}, {"restart_marker_blocks": 3})
    return saved(colour, "JPEG", quality=quality, subsampling=_pick(random, 0, 1, 2), progressive=_pick(random, False, True), **restarts)


def _tiff(random: Random) -> bytes:
    options: dict[str, Any] = {"byteorder": _pick(random, "<", ">"), "bigtiff": bool(random.random() < 0.2)}
    how = _pick(random, "gray8", "gray16", "gray16", "odd", "rgb8", "palette", "bilevel", "pages", "fax")
    if how == "fax":
        image = Image.fromarray(_gray(random, 8)).convert("1")
        return saved(image, "TIFF", compression=_pick(random, "group3", "group4", "tiff_ccitt"))
    if how == "odd":
        bits = int(random.integers(2, 16))
        return tiff(_gray(random, bits), bitspersample=bits, **options)
    if how == "palette":
        colours = random.integers(0, 2**16, size=(3, 256)).astype(np.uint16)
        return tiff(_gray(random, 8), photometric="palette", colormap=colours, **options)
    if how == "bilevel":
        return tiff(_gray(random, 8) > 100, compression=_pick(random, None, "zlib", "packbits"), **options)
    if how == "pages":
        gray = _gray(random, 8)
        return tiff(np.stack([gray] * int(random.integers(2, 5))), photometric="minisblack", **options)
    return _compressed_tiff(random, how, options)


def _compressed_tiff(random: Random, how: str, options: dict[str, Any]) -> bytes:
    """A page in a random compression, layout and orientation; what the writer refuses is written plainly."""
    samples = _rgb(random) if how == "rgb8" else _gray(random, int(how[4:]))
    options["photometric"] = "rgb" if how == "rgb8" else _pick(random, "minisblack", "miniswhite")
    plain = dict(options)
    compression = _pick(random, *{"gray8": _TIFF_GRAY8, "gray16": _TIFF_GRAY16, "rgb8": _TIFF_RGB8}[how])
    options["compression"] = None if compression == "none" else compression
    if compression in ("lzw", "zlib", "zstd") and random.random() < 0.5:
        options["predictor"] = True
    if random.random() < 0.3:
        options["tile"] = (16, _pick(random, 16, 32))
    elif random.random() < 0.5:
        options["rowsperstrip"] = int(random.integers(1, 20))
    if random.random() < 0.2:
        options["extratags"] = [(274, 3, 1, int(random.integers(1, 9)), True)]
    try:
        return tiff(samples, **options)
    except (ValueError, RuntimeError):
        return tiff(samples, **plain)


def _jp2(random: Random) -> bytes:
    bits = _pick(random, 8, 8, 16, 12, 10, 1)
    samples = _rgb(random) if bits == 8 and random.random() < 0.4 else _gray(random, bits)
    lossless = {"reversible": True, "level": 0}
    coding = _pick(random, lossless, lossless, {"level": int(random.integers(20, 60))})
    depth = {} if bits in (8, 16) else {"bitspersample": bits}
    if random.random() < 0.15:
        return bytes(imagecodecs.htj2k_encode(samples))
    if bits == 8 and random.random() < 0.3:
        return saved(Image.fromarray(samples), "JPEG2000", tile_size=(16, 32), num_resolutions=2)
    resolutions = int(random.integers(1, 6))
    return bytes(imagecodecs.jpeg2k_encode(samples, codecformat=_pick(random, "jp2", "j2k"), resolutions=resolutions, **coding, **depth))


def _dicom(random: Random) -> bytes:
    how = _pick(random, "native", "native", "native", "rgb", "palette", "bits", "frames", "deflated", "bare", "rle", *_SYNTAXES)
    meaning = _meaning(random)
    if how in _SYNTAXES:
        return _encapsulated(random, how, meaning)
    if how == "rgb":
        photometric = _pick(random, "RGB", "YBR_FULL")
        return dicom(_rgb(random), SamplesPerPixel=3, PhotometricInterpretation=photometric, PlanarConfiguration=0)
    if how == "palette":
        entries = [256, 0, _pick(random, 8, 16)]
        colours = random.integers(0, 256, size=512, dtype=np.uint8).tobytes()[: 256 * entries[2] // 8]
        maps = {f"{name}PaletteColorLookupTable{part}": value for name in ("Red", "Green", "Blue")
                for part, value in (("Descriptor", entries), ("Data", colours))}  # fmt: skip
        return dicom(_gray(random, 8), PhotometricInterpretation="PALETTE COLOR", **maps)
    if how == "bits":
        bilevel = (_gray(random, 8) > 100).astype(np.uint8)
        return dicom(bilevel, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=pack_bits(bilevel))
    if how == "frames":
        return dicom(np.repeat(_gray(random, 8)[None], 3, axis=0), **meaning)
    bits = int(random.integers(9, 17)) if how != "rle" else 16
    stored = _gray(random, bits)
    if how == "native" and random.random() < 0.3:
        stored = (stored.astype(np.int32) - 2 ** (bits - 1)).astype(np.int16)
    if how == "deflated":
        return deflated(dicom(stored, bits=bits, **meaning))
    if how == "rle":
        return dicom(stored, syntax=RLELossless)
    return dicom(stored, bits=bits, preamble=how != "bare", **meaning)


def _meaning(random: Random) -> dict[str, Any]:
    """Elements that say what stored values mean: none, or a window, a rescale, look-up tables, padding."""
    meaning: dict[str, Any] = {"PhotometricInterpretation": _pick(random, "MONOCHROME1", "MONOCHROME2")}
    if random.random() < 0.4:
        function = _pick(random, "LINEAR", "LINEAR_EXACT", "SIGMOID")
        meaning |= {"WindowCenter": 900, "WindowWidth": 1500, "VOILUTFunction": function}
    if random.random() < 0.3:
        meaning |= {"RescaleSlope": _pick(random, 2.5, -1), "RescaleIntercept": -1024}
    if random.random() < 0.2:
        meaning["VOILUTSequence"] = [lut_item(list(range(256)), first=10, bits=8)]
    if random.random() < 0.2:
        meaning["ModalityLUTSequence"] = [lut_item(list(range(0, 4096, 4)), first=0, bits=12)]
    if random.random() < 0.2:
        meaning |= {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 20}
    return meaning


def _encapsulated(random: Random, how: str, meaning: dict[str, Any]) -> bytes:
    """A frame in one of the compressed transfer syntaxes, in one fragment or several."""
    bits = {"jpeg": 8, "jpeg12": 12, "j2k-lossy": 8}.get(how) or _pick(random, 8, 12, 16)
    stored = _gray(random, bits)
    coders: dict[str, Callable[[], bytes]] = {
        "jpeg": lambda: saved(Image.fromarray(stored), "JPEG"),
        "jpeg12": lambda: imagecodecs.jpeg8_encode(stored, 95, bitspersample=12),
        "lossless": lambda: imagecodecs.jpeg8_encode(stored, lossless=True, bitspersample=bits),
        "jpegls": lambda: imagecodecs.jpegls_encode(stored),
        "j2k": lambda: imagecodecs.jpeg2k_encode(stored, codecformat="j2k", reversible=True, level=0),
        "j2k-lossy": lambda: imagecodecs.jpeg2k_encode(stored, codecformat="j2k", level=40),
        "htj2k": lambda: imagecodecs.htj2k_encode(stored),
    }
    plain = dicom(stored, bits=bits, **meaning)
    fragments = int(random.integers(1, 4)) if how not in ("jpeg", "lossless") else 1
    return encapsulated(plain, encapsulate([bytes(coders[how]())], fragments_per_frame=fragments), _SYNTAXES[how])


_MAKERS: dict[str, Callable[[Random], bytes]] = {"PNG": _png, "JPEG": _jpeg, "TIFF": _tiff, "JP2": _jp2, "DICOM": _dicom}
