"""TIFF: the first page, in strips or tiles of any compression that the codecs know; gray, palette or RGB in up to 16 bits."""

from __future__ import annotations

import struct
from functools import partial

import numpy as np
import tifffile

from engine.decode.bounded import BoundedFile
from engine.decode.film import Film, Header, Plain, Samples, SealedFilm, check_size, invert, to_gray, white_level
from engine.decode.orientation import upright, upright_size
from engine.errors import DecodeError
from engine.recipe import PixelRecipe

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PHOTOMETRIC = tifffile.PHOTOMETRIC
_READ = (_PHOTOMETRIC.MINISWHITE, _PHOTOMETRIC.MINISBLACK, _PHOTOMETRIC.RGB, _PHOTOMETRIC.PALETTE, _PHOTOMETRIC.YCBCR)
_ORDINARY = (tifffile.COMPRESSION.NONE, tifffile.COMPRESSION.LZW, tifffile.COMPRESSION.ADOBE_DEFLATE, tifffile.COMPRESSION.DEFLATE)
_SAFE = (*_ORDINARY, tifffile.COMPRESSION.PACKBITS)  # these write into as many bytes as the page has, and stop
_MAX_PAGES = 10_000  # that are counted
_PLAIN: dict[tuple[int, int, int], Plain] = {
    (_PHOTOMETRIC.MINISBLACK, 1, 8): "gray8",
    (_PHOTOMETRIC.MINISBLACK, 1, 16): "gray16",
    (_PHOTOMETRIC.RGB, 3, 8): "rgb8",
    (_PHOTOMETRIC.RGB, 3, 16): "rgb16",
}


def open_tiff(data: bytes, *, max_pixels: int) -> SealedFilm:
    """Reads the directories. Raises DecodeError for float, signed or deep samples, and for data that are not all there."""
    with tifffile.TiffFile(BoundedFile(data)) as tiff:
        page = _first_page(tiff)
        pages = _count_pages(data, tiff)
    check_size(page.imagelength, page.imagewidth, max_pixels=max_pixels)
    if page.is_tiled:  # a small page may be cut from one enormous tile
        check_size(page.tilelength * page.tiledepth, page.tilewidth, max_pixels=max_pixels)
    _check_samples(page)
    _check_segments(page, len(data))
    orientation = int(page.tags.valueof(274, 1))
    height, width = upright_size(page.imagelength, page.imagewidth, orientation)
    bits = 8 if page.photometric == _PHOTOMETRIC.PALETTE else page.bitspersample
    is_ordinary = page.compression in _ORDINARY and orientation == 1
    plain = _PLAIN.get((page.photometric, page.samplesperpixel, bits), "") if is_ordinary else ""
    note = f"first of {pages}{'' if pages < _MAX_PAGES else ' or more'} pages" if pages > 1 else ""
    is_risky = page.compression not in _SAFE
    return SealedFilm(data, Header("TIFF", height, width, bits, plain=plain, note=note, is_risky=is_risky), partial(_read, data))


def _count_pages(data: bytes, tiff: tifffile.TiffFile) -> int:
    """Directories in the chain, up to _MAX_PAGES. The reader's own count goes round for ever where the chain does."""
    form = tiff.tiff
    at, seen = tiff.pages.first.offset, set[int]()
    while at and at not in seen and len(seen) < _MAX_PAGES and at + form.tagnosize <= len(data):
        seen.add(at)
        (entries,) = struct.unpack_from(form.tagnoformat, data, at)
        after = at + form.tagnosize + entries * form.tagsize
        if after + form.offsetsize > len(data):
            break
        (at,) = struct.unpack_from(form.offsetformat, data, after)
    return len(seen)


def _first_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    page = tiff.pages[0]
    if not isinstance(page, tifffile.TiffPage):  # only the second and later pages can be abbreviated
        raise DecodeError("TIFF has no first page")
    return page


def _check_samples(page: tifffile.TiffPage) -> None:
    if page.photometric not in _READ:
        raise DecodeError(f"TIFF colours are neither gray, palette nor RGB: photometric {int(page.photometric)}")
    if page.sampleformat != tifffile.SAMPLEFORMAT.UINT or not 1 <= page.bitspersample <= 16:
        raise DecodeError(f"TIFF samples are not unsigned integers of up to 16 bits: {page.bitspersample} bits")
    if page.imagedepth != 1 or not 1 <= page.samplesperpixel <= 4:
        raise DecodeError("TIFF page is a volume or has more than 4 samples a pixel")


def _check_segments(page: tifffile.TiffPage, size: int) -> None:
    """Every strip or tile must be there: the reader would fill a missing one with zeros."""
    counts, offsets = page.databytecounts, page.dataoffsets
    if not counts or len(counts) != len(offsets) or len(counts) != int(np.prod(page.chunked)):
        raise DecodeError("TIFF has the wrong number of strips or tiles")
    if any(count == 0 or offset == 0 or offset + count > size for offset, count in zip(offsets, counts, strict=True)):
        raise DecodeError("TIFF is truncated: a strip or tile is missing")


def _read(data: bytes, recipe: PixelRecipe) -> Film:
    with tifffile.TiffFile(BoundedFile(data)) as tiff:
        page = _first_page(tiff)
        samples = page.asarray(maxworkers=1)
        if page.axes.startswith("S"):  # planes one after another
            samples = np.moveaxis(samples, 0, -1)
    samples = upright(samples, int(page.tags.valueof(274, 1)))
    if page.photometric == _PHOTOMETRIC.PALETTE:
        return Film(to_gray(_look_up(page, samples)), 65535 * white_level(8, recipe) / 255)
    white = white_level(page.bitspersample, recipe)
    gray = to_gray(samples.astype(np.uint8) if samples.dtype == bool else samples)
    return Film(invert(gray, white) if page.photometric == _PHOTOMETRIC.MINISWHITE else gray, white)


def _look_up(page: tifffile.TiffPage, indices: Samples) -> Samples:
    """RGB uint16 of palette indices; the colour map of a TIFF is 16 bits deep whatever the indices are."""
    if page.colormap is None or indices.ndim != 2:
        raise DecodeError("TIFF palette is missing")
    return np.moveaxis(page.colormap, 0, -1)[indices]
