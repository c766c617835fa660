"""A direction on the disk: one small safetensors file that says whose space it is of, what it is and how it was found."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from engine.encode.codec_directory import write_aside
from engine.errors import ConfigError
from engine.json_object import read_json_object
from engine.latents.codes import Space

FORMAT = "latentray-direction"
_KEY, _TENSOR = "latentray", "direction"

Array = np.ndarray[Any, np.dtype[np.floating[Any]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Direction:
    """`vector` [d] of unit length, in the space of `digest`'s codes of this `shape`. `spread`: standard deviation of codes along it.

    A film is edited by `alpha * spread * vector`, so alpha counts standard deviations of the films that it was found on.
    `provenance`: how it was found, on what, and its figures.
    """

    attribute: str
    method: str
    vector: Array
    spread: float
    shape: tuple[int, ...]
    codec: str
    digest: str
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> Array:
        """What one alpha adds to a code: [d]."""
        return self.vector * self.spread

    def check_space(self, space: Space) -> None:
        """Raises ConfigError unless it is of this space: codes of another codec mean something else."""
        if self.digest != space.digest:
            theirs = f"{space.codec} ({space.digest[:12]})"
            raise ConfigError(f"direction {self.attribute} is of codec {self.codec} ({self.digest[:12]}), the codes are of {theirs}")


def write_direction(path: Path, direction: Direction) -> None:
    """Writes it aside, then in place. Raises ConfigError where that cannot be."""
    about = {name: value for name, value in asdict(direction).items() if name != "vector"}
    metadata = {_KEY: json.dumps({"format": FORMAT, "format_version": 1, **about}, sort_keys=True, allow_nan=False)}
    data = save({_TENSOR: direction.vector.astype(np.float32)}, metadata=metadata)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(path, data)
    except OSError as error:
        raise ConfigError(f"direction cannot be written ({error.strerror}): {path}") from None


def read_direction(path: Path) -> Direction:
    """The direction in a file. Raises ConfigError for a file that is missing or holds none."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            about = read_json_object((file.metadata() or {}).get(_KEY, "{}"))
            vector = file.get_tensor(_TENSOR).astype(np.float64)
        if about.pop("format") != FORMAT or about.pop("format_version") != 1:
            raise ValueError
        found = Direction(**_typed(about), vector=vector)
        if vector.shape != (math.prod(found.shape),) or not np.isfinite(vector).all():
            raise ValueError
    except FileNotFoundError:
        raise ConfigError(f"there is no direction: {path}") from None
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError):
        raise ConfigError(f"file holds no direction of latentray: {path}") from None
    return found


def _typed(about: dict[str, Any]) -> dict[str, Any]:
    """The fields but for the vector, each of its type. Raises ValueError, KeyError or TypeError."""
    texts = {name: about.pop(name) for name in ("attribute", "method", "codec", "digest")}
    spread, sizes = about.pop("spread"), about.pop("shape")
    if (
        not all(isinstance(text, str) for text in texts.values())
        or isinstance(spread, bool)
        or not isinstance(sizes, list)
        or min(sizes) < 1
    ):
        raise ValueError
    return {**texts, "spread": float(spread), "shape": tuple(map(int, sizes)), "provenance": dict(about.pop("provenance", {})), **about}
