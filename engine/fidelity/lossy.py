"""Layers for a PSNR or a size: the film, or the film minus the reconstruction of its code, at the quality that meets the target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from engine.fidelity.codestream import CODESTREAMS, Plane, decode_plane, encode_plane
from engine.fidelity.header import Kind, LayerInfo
from engine.fidelity.heads import squeeze
from engine.fidelity.planes import Values, describe, from_plane, predicted, psnr_of, to_plane
from engine.fidelity.region import Region
from engine.fidelity.search import Trial, meet_bytes, meet_psnr
from engine.fidelity.target import Target
from engine.fidelity.way import Way
from engine.records import FilmSamples

_AVIF_DEPTHS = (8, 10, 12)
_PROBE_EFFORT = 10  # AVIF's quickest, a seventh of the time of its usual one
_PROBE_LOSS = 0.25  # dB that the quickest effort lies below the usual one at equal quality, on ChestX-ray14 films
_PROBE_ENOUGH = 0.5


class LossyCoder:
    """One film on its way to a target: the plane is made once, qualities are tried on it. Pixels of `region` count as exact."""

    def __init__(
        self, film: FilmSamples, way: Way, *, prediction: np.ndarray[Any, Any] | None = None, region: Region | None = None
    ) -> None:
        self.film, self.way, self.region = film, way, region
        self.expected: Values | None = None
        values = film.samples
        if way.residual:
            self.expected = predicted(prediction, film, film.samples.shape)
            values = film.samples.astype(np.int32) - self.expected
        self.plane, self.info = _lossy_plane(values, film, way)

    def attempt(self, quality: float, *, effort: int | None = None) -> Trial:
        """The film at one quality: codestream with its squeezed head, and the PSNR of what comes back."""
        effort = self.way.effort if effort is None else effort
        code = encode_plane(self.way.codec, self.plane, self.info.plane_bits, quality=quality, effort=effort)
        back = from_plane(decode_plane(self.way.codec, code, self.plane.shape, self.info.plane_bits), self.info, self.expected)
        if self.region is not None:
            back = self.region.paste(self.region.of(self.film.samples), back)
        return Trial(quality, squeeze(self.way.codec, code), psnr_of(self.film, back), back)

    def meet(self, target: Target, *, beside: int = 0) -> Trial:
        """The trial that meets the target, or comes nearest; `beside`: bytes of the layer that are no codestream.

        For AVIF the way to a PSNR is felt with the quickest effort.
        """
        knob = CODESTREAMS[self.way.codec].knob
        assert knob is not None
        start = self.way.start
        if target.kind == "bytes":
            return meet_bytes(self.attempt, knob, int(target.value) - beside, start)
        if self.way.codec == "avif" and self.way.effort < _PROBE_EFFORT:
            loose = replace(knob, enough=_PROBE_ENOUGH)
            start = meet_psnr(lambda quality: self.attempt(quality, effort=_PROBE_EFFORT), loose, target.value - _PROBE_LOSS, start).quality
        return meet_psnr(self.attempt, knob, target.value, start)


def _lossy_plane(values: np.ndarray[Any, Any], film: FilmSamples, way: Way) -> tuple[Plane, LayerInfo]:
    """The plane of values at a depth that the codec has, and the header that goes with it."""
    codec = CODESTREAMS[way.codec]
    low, high = int(values.min()), int(values.max())
    offset = 0 if low >= 0 and not way.residual else low
    span = 2**film.bits - 1 if offset == 0 and not way.residual else max(1, high - low)
    bits = max(film.bits, span.bit_length())  # as deep as the film, so that qualities mean the same for a residual
    step = 1
    if way.codec == "avif":
        bits = next((depth for depth in _AVIF_DEPTHS if bits <= depth), codec.most_bits)
    if span > 2 ** min(bits, codec.most_bits) - 1:
        bits = codec.most_bits
        step = -(-span // (2**bits - 1))
    kind: Kind = "residual" if way.residual else "film"
    info = LayerInfo(kind, way.codec, plane_bits=bits, offset=offset, step=step, **describe(film))
    if (offset, step) == (0, 1) and values.dtype.kind == "u" and (values.itemsize == 1) == (bits <= 8):
        return np.ascontiguousarray(values), info
    plane, _ = to_plane(values.astype(np.int32), offset=offset, step=step)
    return plane.astype(np.uint8 if bits <= 8 else np.uint16), info
