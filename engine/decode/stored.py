"""The integers that a film's file holds, before any window: what "lossless" means, whatever the format."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Self

import numpy as np

from engine.config import DecodeConfig
from engine.decode.film import Film, Samples
from engine.decode.formats import open_film, read_stored, settle_libraries
from engine.decode.guard import Guard
from engine.errors import DecodeError
from engine.records import FilmSamples

_SURELY_WHOLE = 1 / 32  # how far luma may lie from a whole number: that of gray stored as colour misses it by rounding alone
_MOST = 65_535


class SampleReader:
    """Reads stored samples, for any number of threads. Risky formats are read in guarded processes: `close` it, or use it in a `with`."""

    def __init__(self, cfg: DecodeConfig) -> None:
        settle_libraries()
        self._cfg = cfg
        self._guard = Guard(None, cfg)

    def read(self, data: bytes) -> FilmSamples:
        """The samples of a file. Raises DecodeError, with a reason of one line, for a file that no film comes out of.

        Upright, as viewers show them; a TIFF whose lowest value is white is turned round, a PNG of 1, 2 or 4 bits is 8 bits deep.
        Colour becomes gray as everywhere (ITU-R 601): exactly where its channels are equal, else rounded, which `lossy` says.
        """
        sealed = open_film(data, self._cfg)
        film = self._guard.read(sealed) if sealed.header.is_risky else read_stored(sealed)
        samples, lossy = _whole(film)
        if sealed.read_stored is not None and film.samples.dtype.kind != "f":
            bits, black, white = sealed.header.bits, film.black, film.white
        else:
            bits, black, white = max(1, round(math.log2(film.white + 1))), 0.0, film.white
        return FilmSamples(samples, max(bits, _bits_needed(samples)), black, white, lossy)

    def close(self) -> None:
        """Ends the guarded processes; called once no thread reads any more."""
        self._guard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _whole(film: Film) -> tuple[Samples, str]:
    """Samples as uint8, uint16 or int16 in the machine's byte order, and why they are not the file's own, if they are not."""
    samples = film.samples
    if samples.dtype.kind in "ui":
        return np.ascontiguousarray(samples, dtype=samples.dtype.newbyteorder("=")), ""
    if not np.isfinite(samples).all() or samples.min() < -0.5 or samples.max() > _MOST + 0.5:
        raise DecodeError("samples lie beyond 16 bits")
    rounded = np.rint(samples)
    is_gray = bool(np.abs(samples - rounded).max() <= _SURELY_WHOLE)
    return rounded.astype(np.uint8 if film.white <= 255 else np.uint16), "" if is_gray else "the film is in colour, and its luma is rounded"


def _bits_needed(samples: Samples) -> int:
    low, high = int(samples.min()), int(samples.max())
    if samples.dtype.kind == "u":
        return high.bit_length()
    return max((~low if low < 0 else low).bit_length(), high.bit_length()) + 1
