"""Films that are hard on a coder: every depth and sign, odd sizes, one row, one gray, noise; and a smooth one like a radiograph."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from engine.records import FilmSamples

Samples = np.ndarray[Any, Any]
DEPTHS = [(8, False), (10, False), (12, False), (15, False), (16, False), (12, True), (16, True), (1, False)]


def film_of(samples: Samples, bits: int, *, inverted: bool = False, lossy: str = "") -> FilmSamples:
    """Samples with the full range of their bits as what is shown."""
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if samples.dtype.kind == "i" else (0.0, 2.0**bits - 1)
    return FilmSamples(samples, bits, *((high, low) if inverted else (low, high)), lossy)


def radiograph(
    height: int = 96, width: int = 80, bits: int = 8, *, signed: bool = False, seed: int = 0, noise: float = 0.01
) -> FilmSamples:
    """Smooth gray with edges, and noise as a share of the range."""
    y, x = np.mgrid[0:height, 0:width]
    gray = 0.5 + 0.3 * np.sin(x / 17) * np.cos(y / 23) + 0.15 * (x > width // 2)
    gray += noise * np.random.default_rng(seed).standard_normal(gray.shape)
    levels = np.rint(np.clip(gray, 0, 1) * (2**bits - 1)).astype(np.int32)
    if signed:
        return film_of((levels - 2 ** (bits - 1)).astype(np.int16), bits)
    return film_of(levels.astype(np.uint8 if bits <= 8 else np.uint16), bits)


@st.composite
def films(draw: st.DrawFn) -> FilmSamples:
    """Any small film: noise, one gray, a ramp, or the two extremes side by side; sometimes with every k-th value only."""
    bits, signed = draw(st.sampled_from(DEPTHS))
    height, width = draw(st.sampled_from([(1, 1), (1, 37), (53, 1), (7, 9), (16, 16), (33, 64), (40, 41)]))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    kind = draw(st.sampled_from(["noise", "constant", "ramp", "extremes", "sparse"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    if kind == "constant":
        values = np.full((height, width), draw(st.integers(low, high)))
    elif kind == "ramp":
        values = np.linspace(low, high, height * width).round().astype(np.int64).reshape(height, width)
    elif kind == "extremes":
        values = rng.choice([low, high], (height, width))
    else:
        values = rng.integers(low, high, (height, width), endpoint=True)
        values = values // 16 * 16 if kind == "sparse" and bits > 8 else values
    dtype = np.int16 if signed else np.uint8 if bits <= 8 else np.uint16
    return film_of(values.astype(dtype), bits, inverted=draw(st.booleans()))
