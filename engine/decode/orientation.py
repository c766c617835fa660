"""Which way is up: the orientation that EXIF (JPEG, PNG) and TIFF files state, and how it is applied."""

from __future__ import annotations

import struct

import numpy as np

from engine.decode.film import Samples

_ORIENTATION_TAG = 274
_SHORT = 3
_MAX_ENTRIES = 512  # of an EXIF directory; real ones have a few dozen


def exif_orientation(exif: bytes) -> int:
    """Orientation 1 to 8 of an EXIF block (a small TIFF file, without the "Exif" mark); 1 where it says nothing sensible."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 1
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    if start + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for entry in range(min(count, _MAX_ENTRIES)):
        at = start + 2 + 12 * entry
        if at + 12 > len(exif):
            break
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, at)
        if tag == _ORIENTATION_TAG and kind == _SHORT:
            return value if 1 <= value <= 8 else 1
    return 1


def upright(samples: Samples, orientation: int) -> Samples:
    """Samples [H, W, ...] turned and mirrored so that row 0 is the top and column 0 the left, as EXIF defines 1 to 8."""
    if orientation in (5, 6, 7, 8):
        samples = np.swapaxes(samples, 0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)


def upright_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Height and width after `upright`."""
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)
