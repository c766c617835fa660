"""What a user would store instead of layers: films as files of plain codecs, the smallest that reach what a layer promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import imagecodecs
import numpy as np

from benchmarks.rates.picture_codecs import Gray, PictureCodec, tried
from engine.fidelity.target import Target

AVIF_SPEED, JXL_EFFORT, WEBP_METHOD, RESOLUTIONS = 6, 3, 4, 8
EXACT_EFFORTS = {"quick": (3,), "usual": (3, 7)}  # of JPEG XL without loss, for the efforts of `choose_way`

_LEVELS = range(101)
_DISTANCES = [float(each) for each in np.geomspace(25, 0.02, 256)]  # Butteraugli
_DECIBELS = [15 + step / 50 for step in range(2500)]


def plain_codecs(target: Target, *, effort: str) -> dict[str, PictureCodec | str]:
    """The codecs that may reach a target, by name; where one cannot be had on this machine, the reason instead.

    A codec that is exact has one setting. Each uses one thread: films lie side by side, as those of layers do.
    """
    wanted = _exact(EXACT_EFFORTS[effort]) if target.kind == "lossless" else _lossy()
    if target.kind == "max-error":
        wanted.append(_codec("JPEG-LS", [int(target.value)], _write_jpeg_ls, imagecodecs.jpegls_decode))
    return tried(wanted, without="imagecodecs does not write it here")


def smallest(codec: PictureCodec, film: Gray, is_enough: Callable[[Gray], bool]) -> tuple[bytes, float] | None:
    """The file of the lowest setting whose picture is enough, by bisection, with that setting; None where the highest is not enough."""
    low, high, best = 0, len(codec.settings), None
    while low < high:  # pictures of the settings below `low` are not enough, those from `high` on are
        middle = (low + high) // 2
        file = codec.write(film, codec.settings[middle])
        if is_enough(codec.read(file)):
            high, best = middle, (file, codec.settings[middle])
        else:
            low = middle + 1
    return best


def _lossy() -> list[PictureCodec]:
    return [
        _codec("JPEG 2000", _DECIBELS, _write_jpeg_2000, imagecodecs.jpeg2k_decode),
        _codec("AVIF", _LEVELS, _write_avif, imagecodecs.avif_decode),
        _codec(f"JPEG XL effort {JXL_EFFORT}", _DISTANCES, _write_jpeg_xl, imagecodecs.jpegxl_decode),
        _codec("WebP", _LEVELS, _write_webp, imagecodecs.webp_decode),
    ]


def _exact(efforts: Sequence[int]) -> list[PictureCodec]:
    jpeg_xl = [_codec(f"JPEG XL effort {each}", [0], partial(_write_exact_jpeg_xl, each), imagecodecs.jpegxl_decode) for each in efforts]
    return [
        *jpeg_xl,
        _codec("JPEG 2000", [0], _write_exact_jpeg_2000, imagecodecs.jpeg2k_decode),
        _codec("JPEG-LS", [0], _write_jpeg_ls, imagecodecs.jpegls_decode),
        _codec("WebP", [0], _write_exact_webp, imagecodecs.webp_decode),
        _codec("PNG", [0], lambda film, _: bytes(imagecodecs.png_encode(film)), imagecodecs.png_decode),
    ]


def _codec(name: str, settings: Sequence[float], write: Callable[[Gray, float], bytes], decode: Callable[[bytes], Any]) -> PictureCodec:
    return PictureCodec(name=name, settings=settings, write=write, read=lambda file: _gray(decode(file)))


def _gray(picture: np.ndarray[Any, Any]) -> Gray:
    return np.ascontiguousarray(picture[..., 1]) if picture.ndim == 3 else picture  # gray that was written as colour


def _as_colour(film: Gray) -> Gray:
    """Three equal channels, for the codecs that this binding gives no lossy gray; what they cost is a few bytes."""
    return np.repeat(film[..., None], 3, axis=2)


def _write_jpeg_2000(film: Gray, decibels: float) -> bytes:
    options: dict[str, Any] = {"level": decibels, "codecformat": "j2k", "resolutions": _resolutions(film), "numthreads": 1}
    return bytes(imagecodecs.jpeg2k_encode(film, **options))


def _write_exact_jpeg_2000(film: Gray, _: float) -> bytes:
    options: dict[str, Any] = {"reversible": True, "codecformat": "j2k", "resolutions": _resolutions(film), "numthreads": 1}
    return bytes(imagecodecs.jpeg2k_encode(film, **options))


def _resolutions(film: Gray) -> int:
    return min(RESOLUTIONS, int(min(film.shape)).bit_length())


def _write_avif(film: Gray, level: float) -> bytes:
    return bytes(imagecodecs.avif_encode(_as_colour(film), int(level), speed=AVIF_SPEED, pixelformat="420", numthreads=1))


def _write_jpeg_xl(film: Gray, distance: float) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(film, distance=distance, effort=JXL_EFFORT, usecontainer=False, numthreads=1))


def _write_exact_jpeg_xl(effort: int, film: Gray, _: float) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(film, lossless=True, effort=effort, usecontainer=False, numthreads=1))


def _write_webp(film: Gray, level: float) -> bytes:
    return bytes(imagecodecs.webp_encode(_as_colour(film), level=level, lossless=False, method=WEBP_METHOD))


def _write_exact_webp(film: Gray, _: float) -> bytes:
    return bytes(imagecodecs.webp_encode(_as_colour(film), lossless=True, method=WEBP_METHOD))


def _write_jpeg_ls(film: Gray, most: float) -> bytes:
    return bytes(imagecodecs.jpegls_encode(film, level=int(most)))
