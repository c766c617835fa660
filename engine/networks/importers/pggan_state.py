"""Plain weights for `pggan.py` from a generator's layers, whatever the file calls and how it scales them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from engine.errors import CodecError
from engine.networks.importers.imported_network import ImportedNetwork
from engine.networks.pggan import PgganSettings
from engine.networks.settings import read_settings


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer with its scale multiplied in: weight [out, in, k, k] or [out, in], bias [out], float32."""

    weight: Tensor
    bias: Tensor


def he_scale(fan_in: int, gain: float = math.sqrt(2)) -> float:
    """What equalised learning rates multiply by at run time (Karras et al. 2018, section 4.1; He et al. 2015)."""
    return gain / math.sqrt(fan_in)


def scaled(tensor: Tensor, scale: float) -> Tensor:
    """A tensor times a number, rounded once."""
    return (tensor.double() * scale).float()


def imported_pggan(
    layout: str, state: dict[str, Tensor], settings: dict[str, Any], *, colours: int, is_average: bool | None
) -> ImportedNetwork:
    """The generator of these settings, which are checked; raises CodecError, also where films are neither gray nor RGB."""
    if colours not in (1, 3):
        raise CodecError(f"makes films of a number of colours that is neither 1 nor 3: {colours}")
    read_settings(PgganSettings, settings, "its generator")
    return ImportedNetwork(
        role="generator",
        layout=layout,
        network="pggan",
        settings=settings,
        state=state,
        is_average=is_average,
        facts={"colours": colours},
    )


def pggan_state(linear: Layer, first: Layer, levels: Sequence[tuple[Layer, Layer]], to_colours: Layer) -> dict[str, Tensor]:
    """The state of a `PgganGenerator`. The mean of the colour rows makes the mean of the colours, which is the gray film."""
    gray = Layer(
        weight=to_colours.weight.double().mean(0, keepdim=True).float(), bias=to_colours.bias.double().mean(0, keepdim=True).float()
    )
    named = {"linear": linear, "first": first, "to_gray": gray}
    for index, (one, two) in enumerate(levels):
        named |= {f"levels.{index}.first": one, f"levels.{index}.second": two}
    state: dict[str, Tensor] = {}
    for name, layer in named.items():
        state |= {f"{name}.weight": layer.weight.contiguous(), f"{name}.bias": layer.bias.contiguous()}
    return state
