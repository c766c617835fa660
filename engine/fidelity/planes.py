"""Between the samples of a film and the unsigned plane that a codec takes: an offset, a step, and a prediction taken away."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.errors import LayerError
from engine.fidelity.codestream import Plane
from engine.fidelity.header import LayerInfo
from engine.records import FilmSamples

Values = np.ndarray[Any, np.dtype[np.int32]]  # [H, W]
_DTYPES = {"uint8": "|u1", "uint16": "<u2", "int16": "<i2"}


def describe(film: FilmSamples) -> dict[str, Any]:
    """The fields of a LayerInfo that come from the film. Raises ValueError for samples that are none."""
    samples = film.samples
    if samples.ndim != 2 or samples.size == 0 or samples.dtype.name not in _DTYPES or max(samples.shape) > 65535:
        raise ValueError(f"samples are not [H, W] uint8, uint16 or int16: {samples.shape} {samples.dtype}")
    return {
        "height": samples.shape[0],
        "width": samples.shape[1],
        "bits": film.bits,
        "dtype": _DTYPES[samples.dtype.name],
        "black": film.black,
        "white": film.white,
        "is_rounded": bool(film.lossy),
    }


def predicted(prediction: np.ndarray[Any, Any] | None, info_like: FilmSamples | LayerInfo, shape: tuple[int, int]) -> Values:
    """The samples [H, W] that a prediction, gray in [0, 1], stands for. Raises LayerError where it is missing or of another size."""
    if prediction is None:
        raise LayerError("layer is a residual: the reconstruction of the film's code is needed")
    if prediction.shape != shape:
        raise LayerError(f"reconstruction is of another size than the film: {prediction.shape}, not {shape}")
    gray = np.clip(np.nan_to_num(np.asarray(prediction, dtype=np.float64)), 0, 1)
    return np.asarray(np.rint(info_like.black + gray * (info_like.white - info_like.black)), dtype=np.int32)


def to_plane(values: Values, *, offset: int, step: int) -> tuple[Plane, int]:
    """The plane of values, rounded to the nearest multiple of `step` above `offset`, and its bits."""
    plane = (values - np.int32(offset) + np.int32(step // 2)) // np.int32(step)
    bits = max(1, int(plane.max()).bit_length())
    return plane.astype(np.uint8 if bits <= 8 else np.uint16), bits


def from_plane(plane: Plane, info: LayerInfo, prediction: Values | None) -> np.ndarray[Any, Any]:
    """The samples [H, W] that a decoded plane stands for, cut to the range of the film's bits."""
    low, high = info.range
    if (info.offset, info.step, prediction) == (0, 1, None) and low == 0:
        cut: np.ndarray[Any, Any] = np.minimum(plane, plane.dtype.type(min(high, np.iinfo(plane.dtype).max)))
        return cut.astype(info.dtype, copy=False)
    values = plane.astype(np.int64) * info.step + info.offset
    if prediction is not None:
        values += prediction
    return np.asarray(np.clip(values, low, high), dtype=info.dtype)


def exact_step(values: Values) -> tuple[int, int]:
    """Offset and step of a plane that holds the values exactly: samples that keep every k-th value only are coded without the gaps."""
    low = int(values.min())
    step = int(np.gcd.reduce(np.unique(values) - low)) or 1
    return (0, 1) if step == 1 and low >= 0 else (low, step)


def squared_error(film: np.ndarray[Any, Any], back: np.ndarray[Any, Any]) -> float:
    """Sum of squared differences; whole numbers below 2^53, so exact in whatever order they are added."""
    difference = np.subtract(film, back, dtype=np.float64).ravel()
    return float(np.einsum("i,i->", difference, difference))  # no BLAS: its threads go on spinning, on cores that films are coded on


def psnr_of(film: FilmSamples, back: np.ndarray[Any, Any]) -> float:
    """PSNR in dB over all samples, peak 2^bits - 1; infinite where they are equal."""
    error = squared_error(film.samples, back)
    return float("inf") if error == 0 else float(10 * np.log10((2**film.bits - 1) ** 2 * film.samples.size / error))


def max_error_of(film: FilmSamples, back: np.ndarray[Any, Any]) -> int:
    """The largest absolute difference of a sample."""
    return int(np.abs(film.samples.astype(np.int32) - back.astype(np.int32)).max())
