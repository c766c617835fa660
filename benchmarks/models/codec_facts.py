"""What a codec is before any film is coded: how many numbers it learnt, and from how many images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from engine.encode.codec import Codec


def num_parameters(codec: Codec) -> int:
    """Numbers that were learnt, of encoder and generator as they are shipped; weights that both share count once.

    A linear codec was fitted and not trained: what its networks hold are buffers, and these count.
    """
    generator = _learnt(codec.generator.network)
    part = codec.spec.encoder
    if codec.encoder is None or part is None or part.weights == codec.spec.generator.weights:
        return generator
    return generator + _learnt(codec.encoder.network)


def images_seen(provenance: Mapping[str, Any]) -> int | None:
    """Images in the steps of every training that led to a codec, films that a generator made included, from its `provenance`.

    A codec that began from another tells of it under `generator`. None where any of these trainings does not say.
    """
    if provenance.get("task") == "pca":
        return _count(provenance.get("data"), "films")  # one pass
    own = _count(provenance, "images")
    if own is None or provenance.get("start") is None:
        return own
    before = provenance.get("generator")
    earlier = images_seen(before) if isinstance(before, Mapping) else None
    return None if earlier is None else own + earlier


def _learnt(network: nn.Module) -> int:
    parameters = sum(each.numel() for each in network.parameters())
    return parameters or sum(each.numel() for each in network.buffers())


def _count(record: Any, name: str) -> int | None:
    value = record.get(name) if isinstance(record, Mapping) else None
    return value if isinstance(value, int) else None
