"""What stored DICOM values mean: modality LUT or rescale, VOI LUT or window, MONOCHROME1, as one table from stored value to gray."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from engine.decode.film import Samples
from engine.errors import DecodeError
from engine.recipe import PixelRecipe

Values = np.ndarray[Any, np.dtype[np.float64]]


def to_unit(stored: Samples, dataset: Dataset, recipe: PixelRecipe) -> Samples:
    """Gray float32 [H, W] in [0, 1] of stored 8- or 16-bit values; padding becomes black.

    The whole way is computed once for every value a sample can have, in float64, and then looked up: exact, and quick for large films.
    """
    is_signed = stored.dtype.kind == "i"
    container = 8 * stored.dtype.itemsize
    index = stored.view(f"u{stored.dtype.itemsize}")
    every = np.arange(2**container)
    values = np.where(every >= 2 ** (container - 1), every - 2**container, every) if is_signed else every
    table = _gray_of(values.astype(np.float64), dataset, recipe, is_signed=is_signed).astype(np.float32)
    table[_is_padding(every, dataset, container)] = 0
    return np.take(table, index)


def _gray_of(stored: Values, dataset: Dataset, recipe: PixelRecipe, *, is_signed: bool) -> Values:
    """Gray in [0, 1] of stored values [K]."""
    bits = recipe.bits or int(dataset.BitsStored)
    ends = np.array([-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1] if is_signed else [0.0, 2.0**bits - 1])
    values, (low, high) = _modality(stored, ends, dataset)
    gray = _voi(values, dataset) if recipe.window == "auto" else None
    if gray is None:
        # Neither LUT nor window: the full range that the stored bits can hold, so that no film is stretched by its own extremes.
        gray = (values - low) / (high - low)
    if np.isnan(gray).any():
        raise DecodeError("DICOM rescale or window leads to values that are not numbers")
    gray = np.clip(gray, 0, 1)
    return 1 - gray if dataset.PhotometricInterpretation == "MONOCHROME1" else gray


def shown_range(dataset: Dataset, *, is_signed: bool) -> tuple[float, float]:
    """Stored values that are shown black and white: by the rescale and the first linear window, else the full range of the stored bits.

    Tables and curves have no two such values; their films get the full range too. Black lies above white for MONOCHROME1.
    """
    stored = int(dataset.BitsStored)
    low, high = (-(2.0 ** (stored - 1)), 2.0 ** (stored - 1) - 1) if is_signed else (0.0, 2.0**stored - 1)
    slope, intercept = _number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)
    shape = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    has_tables = bool(dataset.get("ModalityLUTSequence") or dataset.get("VOILUTSequence"))
    if not has_tables and shape in ("LINEAR", "LINEAR_EXACT") and has_window(dataset) and slope and np.isfinite([slope, intercept]).all():
        centre, width = _number(dataset, "WindowCenter", 0.0), _number(dataset, "WindowWidth", 1.0)
        centre, width = (centre - 0.5, width - 1) if shape == "LINEAR" else (centre, width)
        ends = ((centre - width / 2 - intercept) / slope, (centre + width / 2 - intercept) / slope)
        low, high = ends if width > 0 and np.isfinite(ends).all() else (low, high)
    elif slope < 0:
        low, high = high, low
    return (high, low) if dataset.PhotometricInterpretation == "MONOCHROME1" else (low, high)


def _modality(stored: Values, ends: Values, dataset: Dataset) -> tuple[Values, tuple[float, float]]:
    """Values after the modality LUT or the rescale (PS3.3 C.11.1), and the range they can take."""
    if dataset.get("ModalityLUTSequence"):
        first, entries, bits = _lookup_table(dataset.ModalityLUTSequence[0], dataset)
        return _look_up(stored, first, entries), (0.0, 2.0**bits - 1)
    slope, intercept = _number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise DecodeError("DICOM rescale makes all values equal")
    low, high = sorted((ends * slope + intercept).tolist())
    return stored * slope + intercept, (low, high)


def _voi(values: Values, dataset: Dataset) -> Values | None:
    """Gray by the file's first VOI LUT, else by its first window (PS3.3 C.11.2); None where it has neither."""
    if dataset.get("VOILUTSequence"):
        first, entries, bits = _lookup_table(dataset.VOILUTSequence[0], dataset)
        return np.asarray(_look_up(values, first, entries) / (2**bits - 1))
    if not has_window(dataset):
        return None
    centre, width = _number(dataset, "WindowCenter", 0.0), _number(dataset, "WindowWidth", 1.0)
    shape = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if shape == "SIGMOID":
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp(-4 * (values - centre) / width)))
    if shape == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    if shape != "LINEAR":
        raise DecodeError(f"DICOM VOI LUT function is unknown: {shape[:16]!r}")
    if width == 1:
        return np.asarray(values > centre - 0.5, dtype=np.float64)
    return (values - (centre - 0.5)) / (width - 1) + 0.5


def has_window(dataset: Dataset) -> bool:
    """Whether the file has a window that can be applied; one without width is no window."""
    width = _number(dataset, "WindowWidth", 0.0)
    least = 0.0 if str(dataset.get("VOILUTFunction") or "").upper() in ("SIGMOID", "LINEAR_EXACT") else 1.0
    return bool(np.isfinite([width, _number(dataset, "WindowCenter", np.nan)]).all()) and width >= least and width > 0


def _number(dataset: Dataset, name: str, default: float) -> float:
    """The first value of an element as a number; files may list several alternatives."""
    value = dataset.get(name)
    if value is None or value == "":
        return default
    return float(value if isinstance(value, int | float | str) else value[0])


def _lookup_table(item: Dataset, dataset: Dataset) -> tuple[int, Values, int]:
    """First mapped value, entries and bits an entry of a LUT item (PS3.3 C.11.1.1); its words come as numbers or as raw bytes."""
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    count = count or 2**16
    if not 1 <= bits <= 16:
        raise DecodeError(f"DICOM LUT entries do not have 1 to 16 bits: {bits}")
    if dataset.get("PixelRepresentation") == 1 and first >= 2**15:
        first -= 2**16  # the descriptor's sign is that of the pixels, whatever the writer declared it to be
    data = item.LUTData
    if isinstance(data, bytes):
        word = "u1" if len(data) in (count, count + 1) and bits == 8 else ("<u2" if dataset.original_encoding[1] else ">u2")
        data = np.frombuffer(data, dtype=word)
    entries = np.atleast_1d(np.asarray(data, dtype=np.float64))[:count]
    if len(entries) != count:
        raise DecodeError(f"DICOM LUT has fewer entries than it says: {len(entries)} of {count}")
    return first, entries, bits


def _look_up(values: Values, first: int, entries: Values) -> Values:
    """Values below the first mapped one take the first entry, those beyond the last take the last."""
    index = np.clip(np.floor(values) - first, 0, len(entries) - 1).astype(np.int64)
    return np.asarray(entries[index])


def _is_padding(every: np.ndarray[Any, Any], dataset: Dataset, container: int) -> np.ndarray[Any, Any]:
    """Which raw sample values stand for "outside the film" (PS3.3 C.7.5.1.1.2), as a mask over all of them."""
    padding = dataset.get("PixelPaddingValue")
    if padding is None or padding == "":
        return np.zeros(len(every), dtype=bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    signed = dataset.get("PixelRepresentation") == 1
    ends = [_wrap(int(end), container, signed=signed) for end in (padding, padding if limit in (None, "") else limit)]
    values = np.where(every >= 2 ** (container - 1), every - 2**container, every) if signed else every
    return np.asarray((values >= min(ends)) & (values <= max(ends)))


def _wrap(value: int, container: int, *, signed: bool) -> int:
    """The sample value that a padding value means, when its writer declared the wrong sign for it."""
    value %= 2**container
    return value - 2**container if signed and value >= 2 ** (container - 1) else value
