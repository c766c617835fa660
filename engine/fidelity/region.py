"""The part of a film that must be exact whatever the rest is: a box or a mask, stored as a layer without loss of its own."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.errors import ConfigError, LayerError
from engine.fidelity.exact import exact_layer
from engine.fidelity.way import Way
from engine.records import FilmSamples

Mask = np.ndarray[Any, np.dtype[np.bool_]]
_BOX = struct.Struct("<4HI")  # x0, y0, x1, y1, bytes of the mask: 0 where the whole box is meant
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Pixels x0 <= x < x1, y0 <= y < y1, upright; with a `mask` [y1 - y0, x1 - x0] only those where it is True."""

    x0: int
    y0: int
    x1: int
    y1: int
    mask: Mask | None = None

    def of(self, samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The view of samples [H, W] within the box. Raises LayerError where the box reaches beyond the film."""
        height, width = samples.shape
        if not (0 <= self.x0 < self.x1 <= width and 0 <= self.y0 < self.y1 <= height):
            box = f"{self.x0},{self.y0},{self.x1},{self.y1}"
            raise LayerError(f"region does not lie within the film of {width}x{height} pixels: {box}")
        return samples[self.y0 : self.y1, self.x0 : self.x1]

    def paste(self, exact: np.ndarray[Any, Any], onto: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """`onto` [H, W] with `exact` [y1 - y0, x1 - x0] in the region."""
        whole = onto.copy()
        np.copyto(self.of(whole), exact, where=True if self.mask is None else self.mask)
        return whole


def parse_box(text: str) -> Region:
    """The region that "x0,y0,x1,y1" names, in pixels of the upright film, ends excluded. Raises ConfigError for anything else."""
    if not re.fullmatch(r"\d{1,5}(,\d{1,5}){3}", text, re.ASCII):
        raise ConfigError(f"a box must be x0,y0,x1,y1 in pixels: {text}")
    x0, y0, x1, y1 = map(int, text.split(","))
    if not (x0 < x1 <= 65535 and y0 < y1 <= 65535):
        raise ConfigError(f"a box must have x0 < x1 and y0 < y1: {text}")
    return Region(x0, y0, x1, y1)


def mask_region(mask: Mask) -> Region | None:
    """The region where a mask [H, W] is True; None where it is True nowhere."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    inside = np.ascontiguousarray(mask[y0:y1, x0:x1], dtype=bool)
    return Region(x0, y0, x1, y1, None if inside.all() else inside)


def region_block(film: FilmSamples, region: Region, way: Way) -> bytes:
    """The bytes that stand before a codestream: the box, the mask, and a layer of the samples in them.

    Exact samples, not a correction of the lossy film: a correction would hang on how another machine's decoder rounds.
    """
    samples = np.ascontiguousarray(region.of(film.samples))
    packed = b""
    if region.mask is not None:
        packed = zlib.compress(np.packbits(region.mask).tobytes(), 9)
        samples = _calm(samples, region.mask)
    inner = exact_layer(replace(film, samples=samples), way)
    block = _BOX.pack(region.x0, region.y0, region.x1, region.y1, len(packed)) + packed + inner
    return _LENGTH.pack(len(block)) + block


def split_block(body: bytes) -> tuple[Region, bytes, bytes]:
    """Region, its layer, and what follows, of a body that begins with a block. Raises LayerError where it makes no sense."""
    try:
        (length,) = _LENGTH.unpack_from(body)
        x0, y0, x1, y1, mask_bytes = _BOX.unpack_from(body, _LENGTH.size)
    except struct.error as error:
        raise LayerError("layer is damaged: its region is cut") from error
    end, at = _LENGTH.size + length, _LENGTH.size + _BOX.size
    if end > len(body) or at + mask_bytes > end or not (x0 < x1 and y0 < y1):
        raise LayerError("layer is damaged: its region makes no sense")
    mask = _unpack_mask(body[at : at + mask_bytes], y1 - y0, x1 - x0) if mask_bytes else None
    return Region(x0, y0, x1, y1, mask), body[at + mask_bytes : end], body[end:]


def _unpack_mask(packed: bytes, height: int, width: int) -> Mask:
    size = (height * width + 7) // 8
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(packed, size + 1)
    except zlib.error as error:
        raise LayerError("layer is damaged: its mask cannot be inflated") from error
    if len(plain) != size:
        raise LayerError("layer is damaged: its mask has another size than its box")
    return np.unpackbits(np.frombuffer(plain, np.uint8), count=height * width).reshape(height, width).astype(bool)


def _calm(samples: np.ndarray[Any, Any], mask: Mask) -> np.ndarray[Any, Any]:
    """Samples whose part outside the mask repeats the last one inside it along the row, which costs a codec next to nothing."""
    last = np.maximum.accumulate(np.where(mask, np.arange(mask.shape[1]), -1), axis=1)
    first = np.argmax(mask, axis=1)[:, None]
    return np.take_along_axis(samples, np.where(last < 0, first, last), axis=1)
