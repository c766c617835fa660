"""A layer back to the samples of its film; every damage is one error."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.errors import LayerError
from engine.fidelity.bounded import checksum, split_base
from engine.fidelity.codestream import decode_plane
from engine.fidelity.exact import DIGEST_BYTES, digest_of
from engine.fidelity.header import MAX_PIXELS, LayerInfo, unpack
from engine.fidelity.heads import stretch
from engine.fidelity.planes import Values, from_plane, predicted
from engine.fidelity.region import split_block
from engine.records import FilmSamples

ROUNDED = "not the file's own integers"


def layer_info(data: bytes) -> LayerInfo:
    """What a layer says of itself; nothing is decoded. Raises LayerError for one that is damaged."""
    return unpack(data)[0]


def decode_layer(data: bytes, prediction: np.ndarray[Any, Any] | None = None, *, max_pixels: int = MAX_PIXELS) -> FilmSamples:
    """The film of a layer. `prediction` [H, W]: gray in [0, 1], for a layer whose `needs_prediction` is true.

    Raises LayerError for a damaged layer, one of more than `max_pixels`, or one whose prediction is missing.
    """
    info, body = unpack(data, max_pixels=max_pixels)
    shape = (info.height, info.width)
    region, inside = None, None
    if info.has_region:
        region, nested, body = split_block(body)
        own = layer_info(nested)
        if own.kind != "lossless" or own.has_region or own.has_base:
            raise LayerError("layer is damaged: its region is not exact")
        inside = decode_layer(nested, max_pixels=max_pixels).samples
    expected = predicted(prediction, info, shape) if info.needs_prediction else None
    if info.has_base:
        expected, body = _base(body, info, max_pixels)
    digest, code = (body[:DIGEST_BYTES], body[DIGEST_BYTES:]) if info.kind == "lossless" else (b"", body)
    samples = from_plane(decode_plane(info.codec, stretch(code), shape, info.plane_bits), info, expected)
    if digest and digest_of(samples) != digest:
        raise LayerError("layer does not give the samples whose digest it holds")
    if region is not None and inside is not None:
        if inside.shape != (region.y1 - region.y0, region.x1 - region.x0) or inside.dtype != samples.dtype:
            raise LayerError("layer is damaged: its region is of another size than its box")
        samples = region.paste(inside, samples)
    return FilmSamples(samples, info.bits, info.black, info.white, ROUNDED if info.is_rounded else "")


def _base(body: bytes, info: LayerInfo, max_pixels: int) -> tuple[Values, bytes]:
    """The samples [H, W] of a base that a plane corrects, and what follows it in the body."""
    nested, expected, rest = split_base(body)
    own = layer_info(nested)
    if (own.kind, own.height, own.width, own.dtype) != ("film", info.height, info.width, info.dtype) or own.has_region or own.has_base:
        raise LayerError("layer is damaged: its base is of another kind")
    samples = decode_layer(nested, max_pixels=max_pixels).samples
    if checksum(samples) != expected:
        raise LayerError("the lossy part of the layer decodes to other samples here than where it was made, so no error can be promised")
    return samples.astype(np.int32), rest
