"""Low-rank changes of layers (LoRA, Hu et al. 2022) that lie in a file beside the weights they change: added, which is the same layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from engine.networks.importers.tensor_table import TensorTable

_DOWN, _UP = ".lora_down.weight", ".lora_up.weight"


def merged(state: Mapping[str, Any], layout: str) -> tuple[dict[str, Any], int]:
    """The tensors with each `X.conv.weight` + `X.lora_up.weight` `X.lora_down.weight` as `X.weight`, and how many there were.

    The change is a convolution of the layer's kernel to a few channels, then a 1x1 convolution to the layer's, at a scale of 1, as MedVAE
    adds them. Raises CodecError where the three do not fit.
    """
    layers = [name.removesuffix(_DOWN) for name in state if name.endswith(_DOWN)]
    if not layers:
        return dict(state), 0
    table = TensorTable(state, layout)
    changed: dict[str, Any] = {}
    for layer in layers:
        rank, below, *kernel = table.sizes(f"{layer}{_DOWN}", 4)
        width = table.sizes(f"{layer}{_UP}", 4)[0]
        down, up = table.take(f"{layer}{_DOWN}", rank, below, *kernel), table.take(f"{layer}{_UP}", width, rank, 1, 1)
        weight = table.take(f"{layer}.conv.weight", width, below, *kernel)
        changed[f"{layer}.weight"] = _sum(weight, up, down)
        changed[f"{layer}.bias"] = table.take(f"{layer}.conv.bias", width)
    used = {f"{layer}{part}" for layer in layers for part in (_DOWN, _UP, ".conv.weight", ".conv.bias")}
    return {name: value for name, value in state.items() if name not in used} | changed, len(layers)


def _sum(weight: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return (weight.double() + torch.einsum("or,rihw->oihw", up.double().flatten(1), down.double())).float()
