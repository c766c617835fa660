"""One film to its layer: the smallest bytes that keep what was promised, or the nearest there is and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.errors import LayerError
from engine.fidelity.bounded import bounded_body
from engine.fidelity.exact import exact_body
from engine.fidelity.header import HEADER_BYTES, LayerInfo, pack
from engine.fidelity.lossy import LossyCoder
from engine.fidelity.planes import max_error_of, psnr_of
from engine.fidelity.region import Region, region_block
from engine.fidelity.target import Target
from engine.fidelity.way import EXACT_WAY, Way
from engine.records import FilmSamples

_MUCH = 0.2  # of the film's bits, for a layer that is not exact


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer and what decoding it gave: `psnr` in dB (infinite when exact), `max_error` in sample values.

    `kind`: "lossless", "max-error", "film", "residual", or "none". `reason`: why the target is not met, empty where it is.
    """

    data: bytes
    kind: str
    psnr: float
    max_error: int
    reason: str = ""


def encode_film(
    film: FilmSamples,
    target: Target,
    way: Way,
    *,
    prediction: np.ndarray[Any, Any] | None = None,
    region: Region | None = None,
    strict: bool = False,
) -> Layer:
    """The layer of one film. `prediction` [H, W]: gray in [0, 1], the reconstruction of its code at the film's size, for a residual way.

    Raises LayerError where a residual way has no prediction, and, when `strict`, where the target cannot be met; otherwise the best that
    can be had is returned with the reason. One thread, the same bytes for the same film; Python's lock is let go meanwhile.
    """
    if target.kind == "none":
        return Layer(b"", "none", float("nan"), 0)
    region = None if target.kind == "lossless" else region
    block = region_block(film, region, EXACT_WAY) if region is not None else b""
    info, body, back, reason = _code(film, target, way, prediction, region, beside=HEADER_BYTES + len(block))
    if reason and strict:
        raise LayerError(reason)
    data = pack(replace(info, has_region=True), block + body) if region is not None else pack(info, body)
    return Layer(data, info.kind, psnr_of(film, back), max_error_of(film, back), reason)


def _code(
    film: FilmSamples, target: Target, way: Way, prediction: np.ndarray[Any, Any] | None, region: Region | None, *, beside: int
) -> tuple[LayerInfo, bytes, np.ndarray[Any, Any], str]:
    """Header, body, samples that come back, and the reason why the target is not met, of a film whose layer has `beside` bytes more."""
    if target.kind == "lossless":
        return *exact_body(film, way), f"lossless is not possible: {film.lossy}" if film.lossy else ""
    if target.kind == "max-error":
        info, body, back = bounded_body(film, way, int(target.value))
        back = back if region is None else region.paste(region.of(film.samples), back)
        return info, body, back, f"max-error is not that of the file: {film.lossy}" if film.lossy else ""
    coder = LossyCoder(film, way, prediction=prediction, region=region)
    trial = coder.meet(target, beside=beside)
    size = beside + len(trial.code)
    if target.kind == "bytes":
        return coder.info, trial.code, trial.back, f"needs {size} bytes at least: {target}" if size > target.value else ""
    is_large = 8 * len(trial.code) > _MUCH * film.bits * film.samples.size
    if trial.psnr < target.value or is_large:  # more than the best quality gives, or so much that no loss at all may cost less
        exact = exact_body(film, EXACT_WAY)
        if trial.psnr < target.value or len(exact[1]) < len(trial.code):
            return *exact, ""
    return coder.info, trial.code, trial.back, ""
