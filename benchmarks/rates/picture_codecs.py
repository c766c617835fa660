"""What a user would store instead of codes: pictures by AVIF, JPEG XL, JPEG 2000 and WebP of at most so many bytes, and thumbnails."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import imagecodecs
import numpy as np
from PIL import Image

Gray = np.ndarray[Any, np.dtype[np.uint8]]

SIDES = (48, 64, 96, 128, 192, 256, 384)  # pixels, among which the best internal resolution is looked for
AVIF_SPEED, WEBP_METHOD, JXL_EFFORT = 6, 6, 7  # slower ones save a twentieth of the bytes at most


@dataclass(frozen=True, kw_only=True)
class PictureCodec:
    """One way to write a gray picture u1 [h, w] as a whole file and back. `settings`: from the fewest bytes to the most."""

    name: str
    settings: Sequence[float]
    write: Callable[[Gray, float], bytes]
    read: Callable[[bytes], Gray]

    def fit(self, picture: Gray, most: int) -> bytes | None:
        """The file of the best setting that has `most` bytes or fewer, found by bisection; None where none has."""
        low, high, best = 0, len(self.settings), None
        while low < high:  # files of the settings below `low` fit, those from `high` on do not
            middle = (low + high) // 2
            file = self.write(picture, self.settings[middle])
            if len(file) <= most:
                low, best = middle + 1, file
            else:
                high = middle
        return best


@dataclass(frozen=True, eq=False)
class Fitted:
    """Films as files: the pictures that come back, square u1 of at most `side`, and the bytes of each file."""

    pictures: list[Gray]
    num_bytes: list[int]
    side: int


def fit_films(codec: PictureCodec, films: Sequence[Gray], *, side: int, most: int, smaller: bool = False) -> Fitted | None:
    """Square films shrunk to `side` and written into `most` bytes each; None where one of them cannot be.

    `smaller`: a film of which no file at `side` is so small is shrunk to the next of SIDES, and so on.
    """
    sides = [side, *(each for each in sorted(SIDES, reverse=True) if smaller and each < side)]

    def write(film: Gray) -> bytes | None:
        tried = (codec.fit(shrink(film, each), most) for each in sides)
        return next((file for file in tried if file is not None), None)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # encoders let go of Python's lock
        written = list(pool.map(write, films))
    files = [file for file in written if file is not None]
    return Fitted([codec.read(file) for file in files], list(map(len, files)), side) if len(files) == len(films) else None


def best_side(codec: PictureCodec, films: Sequence[Gray], *, most: int, sides: Sequence[int] = SIDES) -> int | None:
    """The internal resolution with the least mean squared error of these films at their own size; None where no file is so small."""
    errors: dict[int, float] = {}
    for side in sides:
        fitted = fit_films(codec, films, side=side, most=most)
        if fitted is not None:
            errors[side] = _error(films, fitted)
        if errors and errors.get(side, math.inf) > 1.5 * min(errors.values()):
            break  # more pixels at the same bytes only get worse from here on
    return min(errors, key=lambda side: errors[side]) if errors else None


def thumbnails(films: Sequence[Gray], *, most: int) -> Fitted:
    """Square 8-bit pictures of at most `most` pixels, a byte each."""
    side = max(1, math.isqrt(most))
    return Fitted([shrink(film, side) for film in films], [side * side] * len(films), side)


def shrink(film: Gray, side: int) -> Gray:
    """A square film at `side`, each pixel the mean of its area."""
    return cv2.resize(film, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8)


def picture_codecs() -> dict[str, PictureCodec | str]:
    """The codecs by name; where one cannot be had on this machine, the reason instead."""
    return tried((_AVIF, _JPEG_XL, _JPEG_2000, _WEBP), without="neither Pillow nor imagecodecs writes it here")


def tried(codecs: Iterable[PictureCodec], *, without: str) -> dict[str, PictureCodec | str]:
    """Codecs by name, each after it has written and read a small picture; for one that could not, `without` and what it raised."""
    found: dict[str, PictureCodec | str] = {}
    for codec in codecs:
        try:
            codec.read(codec.write(np.zeros((64, 64), dtype=np.uint8), codec.settings[0]))
        except (ImportError, OSError, KeyError, ValueError, RuntimeError) as error:
            found[codec.name] = f"{without} ({type(error).__name__})"
        else:
            found[codec.name] = codec
    return found


def _by_pillow(format_name: str, **fixed: int) -> Callable[[Gray, float], bytes]:
    def write(picture: Gray, quality: float) -> bytes:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format_name, quality=int(quality), **fixed)
        return file.getvalue()

    return write


def _read_by_pillow(file: bytes) -> Gray:
    with Image.open(io.BytesIO(file)) as picture:
        return np.asarray(picture.convert("L"))


def _write_jpeg_xl(picture: Gray, distance: float) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(picture, distance=distance, effort=JXL_EFFORT, numthreads=1))


def _write_jpeg_2000(picture: Gray, decibels: float) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(picture, level=decibels, codecformat="j2k", reversible=False, numthreads=1))  # type: ignore[arg-type]


def _error(films: Sequence[Gray], fitted: Fitted) -> float:
    """Mean squared error at the films' size, of gray values 0 to 255; bicubic is near enough to tell sides apart."""
    total = 0.0
    for film, picture in zip(films, fitted.pictures, strict=True):
        again = cv2.resize(picture.astype(np.float32), film.shape[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 255)
        total += float(np.square(again - film).mean())
    return total / len(films)


_AVIF = PictureCodec(name="AVIF", settings=range(101), write=_by_pillow("AVIF", speed=AVIF_SPEED), read=_read_by_pillow)
_JPEG_XL = PictureCodec(
    name="JPEG XL",
    settings=[25 * 0.96**step for step in range(128)],  # Butteraugli distances
    write=_write_jpeg_xl,
    read=lambda file: np.asarray(imagecodecs.jpegxl_decode(file)),
)
_JPEG_2000 = PictureCodec(
    name="JPEG 2000",
    settings=[10 + step / 4 for step in range(192)],  # dB at the internal resolution
    write=_write_jpeg_2000,
    read=lambda file: np.asarray(imagecodecs.jpeg2k_decode(file)),
)
_WEBP = PictureCodec(name="WebP", settings=range(101), write=_by_pillow("WEBP", method=WEBP_METHOD), read=_read_by_pillow)
