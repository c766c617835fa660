"""Film files with known pixels, in every format that is read, and the bad ones that must not be."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import tifffile
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless, SecondaryCaptureImageStorage

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class FilmFile:
    """Bytes of a file, the gray in [0, 1] it stands for, its bits, and by how much a lossy coder may miss."""

    data: bytes
    gray: Array
    bits: int
    loss: float = 0.0


def ramp(bits: int = 8, height: int = 40, width: int = 56) -> Array:
    """A smooth film with a few hard edges that uses the whole range of `bits`."""
    y, x = np.mgrid[0:height, 0:width]
    film = (np.sin(x / 9) + np.cos(y / 7) + 2) / 4
    film[4:8, 4:20] = 1
    film[10:14, 4:20] = 0
    return np.rint(film * (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def unit(samples: Array, bits: int) -> Array:
    return samples.astype(np.float64) / (2**bits - 1)


def luma(rgb: Array) -> Array:
    return rgb[..., :3].astype(np.float64) @ np.array([0.299, 0.587, 0.114])


def rgb_of(gray: Array) -> Array:
    return np.ascontiguousarray(np.stack([gray, gray[::-1], gray[:, ::-1]], axis=-1))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def tiff(samples: Array, **options: Any) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, samples, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples: Array, depth: int, *, colour: int = 0, extra: bytes = b"") -> bytes:
    """A PNG of gray or palette samples [H, W] at any depth, written by hand so that `extra` chunks can be put in."""
    if depth == 16:
        rows = [b"\0" + row.astype(">u2").tobytes() for row in samples]
    else:
        bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :].reshape(len(samples), -1)
        rows = [b"\0" + np.packbits(row).tobytes() for row in bits]
    height, width = samples.shape
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")


def dicom(stored: Array, *, bits: int | None = None, syntax: str = ExplicitVRLittleEndian, preamble: bool = True, **elements: Any) -> bytes:
    """A DICOM file of stored samples [H, W], [frames, H, W] or (SamplesPerPixel=3) [H, W, 3]; `elements` are set as they are."""
    ds = FileDataset(None, {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128 if preamble else None)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = "1.2.3"
    ds.PatientName, ds.PatientID = "Secret^Person", "12345"
    ds.SamplesPerPixel = elements.get("SamplesPerPixel", 1)
    ds.Rows, ds.Columns = stored.shape[:2] if ds.SamplesPerPixel == 3 else stored.shape[-2:]
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = 8 * stored.dtype.itemsize
    ds.BitsStored = bits or ds.BitsAllocated
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    ds.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    if stored.ndim == 3 and ds.SamplesPerPixel == 1:
        ds.NumberOfFrames = len(stored)
    for name, value in elements.items():
        setattr(ds, name, value)
    if syntax != ExplicitVRLittleEndian:
        ds.compress(syntax, encoding_plugin="pylibjpeg" if syntax == JPEG2000Lossless else "pydicom", generate_instance_uid=False)
    out = io.BytesIO()
    if preamble:
        pydicom.dcmwrite(out, ds, enforce_file_format=True)
    else:
        del ds.file_meta
        pydicom.dcmwrite(out, ds, implicit_vr=True, little_endian=True, enforce_file_format=False)
    return out.getvalue()


def lut_item(entries: list[int], *, first: int, bits: int) -> Dataset:
    """An item of a modality or VOI LUT sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    return item


def deflated(plain: bytes, *, body: bytes | None = None) -> bytes:
    """The same DICOM file in the deflated transfer syntax; `body` replaces the data set."""
    ds = pydicom.dcmread(io.BytesIO(plain))
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, enforce_file_format=True)
    data = out.getvalue()
    if body is None:
        return data
    head_size = 144 + struct.unpack_from("<I", data, 140)[0]  # preamble, mark, group length, group
    deflater = zlib.compressobj(9, wbits=-15)
    return data[:head_size] + deflater.compress(body) + deflater.flush()


def encapsulated(plain: bytes, pixel_data: bytes, syntax: str) -> bytes:
    """The DICOM file with its pixels replaced by encapsulated frames of another transfer syntax."""
    ds = pydicom.dcmread(io.BytesIO(plain))
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = pixel_data
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, enforce_file_format=True)
    return out.getvalue()


def good_films() -> dict[str, FilmFile]:
    """One file of each kind that is read, by name."""
    g8, g12, g16 = ramp(8), ramp(12), ramp(16)
    rgb = rgb_of(g8)
    gray, colour = Image.fromarray(g8), Image.fromarray(rgb)
    palette = colour.quantize(32)
    looked_up = np.asarray(palette.convert("RGB"))
    u8, u12, u16, urgb = unit(g8, 8), unit(g12, 12), unit(g16, 16), luma(rgb) / 255
    j2k = {"reversible": True, "level": 0}
    films = {
        "png8": FilmFile(imagecodecs.png_encode(g8), u8, 8),
        "png16": FilmFile(imagecodecs.png_encode(g16), u16, 16),
        "png-rgb": FilmFile(imagecodecs.png_encode(rgb), urgb, 8),
        "png-rgb16": FilmFile(imagecodecs.png_encode(rgb_of(g16)), luma(rgb_of(g16)) / 65535, 16),
        "png-rgba": FilmFile(saved(colour.convert("RGBA"), "PNG"), urgb, 8),
        "png-la": FilmFile(saved(gray.convert("LA"), "PNG"), u8, 8),
        "png-trns": FilmFile(png(g8, 8, extra=chunk(b"tRNS", b"\0\x05")), u8, 8),
        "png-palette": FilmFile(saved(palette, "PNG"), luma(looked_up) / 255, 8),
        "png-sbit12": FilmFile(png(g12, 16, extra=chunk(b"sBIT", b"\x0c")), u12, 12),
        "png-sbit12-scaled": FilmFile(png(g12 << 4 | g12 >> 8, 16, extra=chunk(b"sBIT", b"\x0c")), unit(g12 << 4 | g12 >> 8, 16), 12),
        "jpeg": FilmFile(saved(gray, "JPEG", quality=95), u8, 8, loss=0.12),
        "jpeg-progressive": FilmFile(saved(gray, "JPEG", quality=95, progressive=True), u8, 8, loss=0.12),
        "jpeg-rgb": FilmFile(saved(colour, "JPEG", quality=97, subsampling=0), urgb, 8, loss=0.12),
        "jpeg-cmyk": FilmFile(saved(colour.convert("CMYK"), "JPEG", quality=97), urgb, 8, loss=0.12),
        "jpeg12": FilmFile(imagecodecs.jpeg8_encode(g12, 98, bitspersample=12), u12, 12, loss=0.12),
        "jpeg-lossless": FilmFile(imagecodecs.jpeg8_encode(g16, lossless=True, bitspersample=16), u16, 16),
        "jpeg-ls": FilmFile(imagecodecs.jpegls_encode(g16), u16, 16),
        "tiff8": FilmFile(tiff(g8), u8, 8),
        "tiff16": FilmFile(tiff(g16), u16, 16),
        "tiff16-big-endian": FilmFile(tiff(g16, byteorder=">"), u16, 16),
        "tiff12": FilmFile(tiff(g12, bitspersample=12), u12, 12),
        "tiff16-lzw": FilmFile(tiff(g16, compression="lzw", predictor=True, rowsperstrip=7), u16, 16),
        "tiff16-tiles": FilmFile(tiff(g16, compression="zlib", tile=(16, 32)), u16, 16),
        "tiff-rgb": FilmFile(tiff(rgb, photometric="rgb"), urgb, 8),
        "tiff-rgb-planar": FilmFile(tiff(np.moveaxis(rgb, -1, 0), photometric="rgb", planarconfig="separate"), urgb, 8),
        "tiff-miniswhite": FilmFile(tiff(255 - g8, photometric="miniswhite"), u8, 8),
        "tiff-palette": FilmFile(tiff(g8, photometric="palette", colormap=np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))), u8, 8),
        "tiff-pages": FilmFile(tiff(np.stack([g8, g8[::-1], g8]), photometric="minisblack"), u8, 8),
        "bigtiff": FilmFile(tiff(g16, bigtiff=True), u16, 16),
        "jp2-8": FilmFile(imagecodecs.jpeg2k_encode(g8, codecformat="jp2", **j2k), u8, 8),
        "jp2-16": FilmFile(imagecodecs.jpeg2k_encode(g16, codecformat="jp2", **j2k), u16, 16),
        "jp2-rgb": FilmFile(imagecodecs.jpeg2k_encode(rgb, codecformat="jp2", **j2k), urgb, 8),
        "j2k-12": FilmFile(imagecodecs.jpeg2k_encode(g12, codecformat="j2k", bitspersample=12, **j2k), u12, 12),
        "dicom8": FilmFile(dicom(g8), u8, 8),
        "dicom12": FilmFile(dicom(g12, bits=12), u12, 12),
        "dicom12-j2k": FilmFile(dicom(g12, bits=12, syntax=JPEG2000Lossless), u12, 12),
        "dicom16-rle": FilmFile(dicom(g16, syntax=RLELossless), u16, 16),
        "dicom-deflated": FilmFile(deflated(dicom(g12, bits=12)), u12, 12),
        "dicom-no-preamble": FilmFile(dicom(g12, bits=12, preamble=False), u12, 12),
        "dicom-rgb": FilmFile(dicom(rgb, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0), urgb, 8),
    }
    for depth in (1, 2, 4):
        samples = ramp(8)[:, :56] >> (8 - depth)
        films[f"png{depth}"] = FilmFile(png(samples, depth), unit(samples, depth), depth)
    return films


def _claims(width: int, height: int) -> dict[str, bytes]:
    """Small files whose headers claim `width` x `height`, or the most that the format can say."""
    side = struct.pack(">HH", min(height, 65535), min(width, 65535))
    jpeg = bytearray(saved(Image.fromarray(ramp()), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = side
    jp2 = bytearray(imagecodecs.jpeg2k_encode(ramp(), codecformat="j2k", reversible=True, level=0))
    jp2[8:16] = struct.pack(">II", width, height)
    page = bytearray(tiff(ramp()))
    with tifffile.TiffFile(io.BytesIO(bytes(page))) as file:
        for code, value in ((256, width), (257, height)):
            tag = file.pages[0].tags[code]
            page[tag.offset : tag.offset + 12] = struct.pack("<HHII", code, 4, 1, value)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return {
        "png": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b""),
        "jpeg": bytes(jpeg),
        "j2k": bytes(jp2),
        "tiff": bytes(page),
        "dicom": dicom(ramp(), Rows=min(height, 65535), Columns=min(width, 65535)),
    }


def _broken_stream(data: bytes) -> bytes:
    """A PNG with one changed byte in its compressed pixels and a checksum that agrees with it."""
    at = data.index(b"IDAT")
    (length,) = struct.unpack_from(">I", data, at - 4)
    pixels = bytearray(data[at + 4 : at + 4 + length])
    pixels[length // 2] ^= 0x10
    return data[: at - 4] + chunk(b"IDAT", bytes(pixels)) + data[at + 8 + length :]


def bad_films() -> dict[str, tuple[bytes, str]]:
    """Files that are no films, with a word that the reason must contain."""
    good = good_films()
    # A TIFF of several pages is left out: its first page is whole.
    cut = {f"cut-{name}": (film.data[: len(film.data) * 6 // 10], "") for name, film in good.items() if name != "tiff-pages"}
    flipped = bytearray(good["png8"].data)
    flipped[len(flipped) // 2] ^= 0x10
    eoi_after_cut = good["jpeg"].data[: int(len(good["jpeg"].data) * 0.7)] + b"\xff\xd9"
    sparse = tiff(ramp(), tile=(16, 16))
    with tifffile.TiffFile(io.BytesIO(sparse)) as file:
        at = file.pages[0].tags[325].valueoffset
    bomb = deflated(good["dicom12"].data, body=bytes(64 * 2**20))
    return {
        **cut,
        **{f"huge-{name}": (data, "pixels") for name, data in _claims(100_000, 100_000).items()},
        **{f"flat-{name}": (data, "") for name, data in _claims(40, 0).items()},
        "empty": (b"", "empty"),
        "one-byte": (b"\xff", "not an image format"),
        "text": (b"Dear colleague, the film is attached. " * 20, "not an image format"),
        "html-named-png": (b"<!doctype html><title>404</title>" * 5, "not an image format"),
        "gif": (saved(Image.fromarray(ramp()), "GIF"), "not an image format"),
        "png-flipped-bit": (bytes(flipped), "checksum"),
        "png-broken-stream": (_broken_stream(good["png8"].data), "PNG"),
        "png-without-end": (good["png8"].data[:-12], "truncated"),
        "jpeg-cut-then-end": (eoi_after_cut, "JPEG"),
        "jpeg-only-start": (b"\xff\xd8\xff\xe0", "truncated"),
        "tiff-float": (tiff(ramp().astype(np.float32)), "unsigned integers"),
        "tiff-signed": (tiff(ramp(12).astype(np.int16)), "unsigned integers"),
        "tiff-32-bit": (tiff(ramp(12).astype(np.uint32)), "unsigned integers"),
        "tiff-sparse": (sparse[:at] + bytes(4) + sparse[at + 4 :], "missing"),
        "dicom-bomb": (bomb, "max_bytes"),
        "dicom-no-pixels": (dicom(ramp(), PixelData=b""), ""),
        "dicom-32-bit": (dicom(ramp(12).astype(np.uint32)), "32 bits allocated"),
    }
