"""Writes what a task has made as a codec directory: networks by their registry names, weights as they are, code and recipe."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from engine.encode.codec import save_codec
from engine.encode.codec_spec import CodecSpec, CodeSpec, NetworkSpec, WeightsFile
from engine.encode.gauge import Gauge
from engine.recipe import PixelRecipe

LICENCE = "not stated; that of the films it was trained on applies"
VECTOR, MAP = ("layer", "channel"), ("channel", "y", "x")
_MEAN = "mean.safetensors"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A network as `codec.json` names it. `module` has the state of the registry's network of this name and these settings."""

    network: str
    settings: Any  # its frozen record
    module: nn.Module


def export_codec(
    out: Path,
    *,
    name: str,
    encoder: Part | None,
    generator: Part,
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    gauge: Gauge,
    mean: Tensor | Literal["zero"] | None,
    recipe: PixelRecipe,
    provenance: dict[str, Any],
    storage: str = "float32",
    loss: str = "mse=1",
    licence: str = LICENCE,
) -> None:
    """Writes the directory `out`. `mean` [*shape]: where refinement starts without an encoder. `storage`: float16 or float32.

    Raises CodecError where the parts do not fit one another, or the directory cannot be written.
    """
    parts = {"encoder": encoder, "generator": generator}
    weights = {f"{role}.safetensors": _stored(part.module, storage) for role, part in parts.items() if part is not None}
    code_mean: Literal["zero"] | WeightsFile | None = None if isinstance(mean, Tensor) else mean
    if isinstance(mean, Tensor):
        weights[_MEAN], code_mean = {"mean": mean.detach().cpu().float().reshape(shape)}, WeightsFile(weights=_MEAN)
    spec = CodecSpec(
        name=name,
        encoder=None if encoder is None else _spec("encoder", encoder),
        generator=_spec("generator", generator),
        code=CodeSpec(dims=dims, shape=shape, gauge=gauge, mean=code_mean),
        recipe=recipe,
        loss=loss,
        licence=licence,
        provenance=provenance,
    )
    save_codec(out, spec, weights=weights)


def _spec(role: str, part: Part) -> NetworkSpec:
    return NetworkSpec(network=part.network, settings=asdict(part.settings), weights=f"{role}.safetensors")


def _stored(module: nn.Module, storage: str) -> dict[str, Tensor]:
    kind = torch.float16 if storage == "float16" else torch.float32
    state = {name: value.detach().cpu() for name, value in module.state_dict().items()}
    return {name: value.to(kind) if value.is_floating_point() else value for name, value in state.items()}
