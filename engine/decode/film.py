"""One film on its way from bytes to pixels: what its header says, the closed file, and the read samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from engine.errors import DecodeError
from engine.recipe import PixelRecipe

Samples = np.ndarray[Any, Any]
Unit = np.ndarray[tuple[int, int], np.dtype[np.float32]]  # [H, W], 0 black to 1 white
MAX_SIDE = 65_535  # an archive stores the size of the source as unsigned 16-bit numbers
Plain = Literal["", "gray8", "gray16", "rgb8", "rgb16"]


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself before any pixel is made: upright size in pixels, significant bits of a sample.

    `plain` names the kind of samples when they are ordinary: gray or RGB, whole 8 or 16 bits, white at the top, upright, so that any
    decoder returns the same integers. Empty for everything else. `note` is for the reader of the archive ("first of 3 pages").
    `is_risky`: its pixels are made by code that a damaged file can crash or keep for ever, so a guarded process does it (`guard.py`).
    """

    format: str
    height: int
    width: int
    bits: int
    plain: Plain = ""
    note: str = ""
    is_risky: bool = False


@dataclass(frozen=True, slots=True)
class Film:
    """Gray samples [H, W], uint8, uint16 or float32, and the value `white` that stands for 1.0 (0 stands for 0.0).

    As a DICOM file stores them they may be int16 too, and then `black` is the value that stands for 0.0.
    """

    samples: Samples
    white: float
    black: float = 0.0


@dataclass(frozen=True, slots=True)
class SealedFilm:
    """A file whose header has been read and believed so far: `read` makes the pixels, as a recipe wants them.

    `read_stored` makes the samples as they are stored, for formats whose `read` does more than that.
    """

    data: bytes
    header: Header
    read: Callable[[PixelRecipe], Film]
    read_stored: Callable[[], Film] | None = None


def check_size(height: int, width: int, *, max_pixels: int) -> None:
    """Raises DecodeError for a film without pixels, with a side above MAX_SIDE, or with more than `max_pixels` as a square.

    Called before anything is allocated. A square, since a strip of 50,000x10 would be padded to gigabytes.
    """
    if height < 1 or width < 1:
        raise DecodeError(f"has no pixels: {height}x{width}")
    if max(height, width) > MAX_SIDE:
        raise DecodeError(f"header claims a side above {MAX_SIDE} pixels, more than an archive can store: {height}x{width}")
    if max(height, width) ** 2 > max_pixels:
        raise DecodeError(f"header claims more than {max_pixels} pixels as a square (decode.max_pixels): {height}x{width}")


def white_level(own_bits: int, recipe: PixelRecipe) -> float:
    """2^bits - 1 with the recipe's bits where it names them, else with the file's own."""
    return float(2 ** (recipe.bits or own_bits) - 1)


def to_gray(samples: Samples) -> Samples:
    """Gray [H, W] of [H, W], [H, W, 1 or 2] (alpha dropped) or [H, W, 3 or 4] RGB (alpha dropped): ITU-R 601 luma in float32, unrounded."""
    if samples.ndim == 2:
        return samples
    if samples.ndim != 3 or not 1 <= samples.shape[2] <= 4:
        raise DecodeError(f"samples are neither gray nor RGB: {'x'.join(map(str, samples.shape))}")
    if samples.shape[2] < 3:
        return np.ascontiguousarray(samples[..., 0])
    rgb = np.ascontiguousarray(samples[..., :3], dtype=np.float32)
    luma: Samples = cv2.transform(rgb, np.array([[0.299, 0.587, 0.114]], dtype=np.float32))
    return luma.reshape(samples.shape[:2])


def invert(samples: Samples, white: float) -> Samples:
    """White minus samples, for films whose lowest value is white; samples beyond `white` count as `white`."""
    clipped = np.minimum(samples, samples.dtype.type(white))
    return np.asarray(np.subtract(samples.dtype.type(white), clipped))


@contextmanager
def refusing(what: str, *, with_message: bool = True) -> Iterator[None]:
    """Turns whatever a decoder raises on bad data into one DecodeError; `with_message` = False where the text could quote a header."""
    try:
        yield
    except DecodeError:
        raise
    # Five libraries and our own header readers meet arbitrary bytes here: struct.error, IndexError, OSError, RuntimeError, MemoryError,
    # RecursionError and classes of their own all mean the same thing, that this film cannot be had.
    except Exception as error:
        text = " ".join(str(error).split())[:160] if with_message else ""
        kind = type(error).__name__
        raise DecodeError(f"{what} data cannot be decoded: {text or kind}") from error
