"""The encoder of Weber et al. 2022: torchvision's ConvNeXt on RGB, as its training script saved it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from engine.errors import CodecError
from engine.networks.importers.imported_network import ImportedNetwork
from engine.networks.importers.tensor_table import TensorTable
from engine.networks.registry import build_network

WEBER = "weber"


def read_weber(state: Any) -> ImportedNetwork:
    """The encoder from the entry `model`: names under `module.` (data parallel) and `model.` (the class), taken off in front only.

    Films are gray, so the three input planes become one, which gives the same codes. Sizes come from the shapes.
    """
    plain = {_torchvision_name(name): value for name, value in state.items()} if isinstance(state, Mapping) else state
    table = TensorTable(plain, WEBER)
    planes = table.sizes("features.0.0.weight", 4)[1]
    depths: list[int] = []
    widths: list[int] = []
    while blocks := table.count(f"features.{2 * len(depths) + 1}.{{}}.layer_scale"):
        widths.append(table.sizes(f"features.{2 * len(depths) + 1}.0.layer_scale", 3)[0])
        depths.append(blocks)
    if not depths:
        raise CodecError(f"lacks a tensor of the layout {WEBER}: features.1.0.layer_scale")
    code_size = table.sizes("classifier.2.weight", 2)[0]
    settings = {"depths": depths, "widths": widths, "code_size": code_size, "in_channels": planes}
    with torch.device("meta"):
        wanted = {name: tuple(value.shape) for name, value in build_network("encoder", "convnext", settings).state_dict().items()}
    read = {name: table.take(name, *shape) for name, shape in wanted.items()}
    table.refuse_rest()
    from engine.networks.convnext import sum_input_planes  # needs torchvision, which `build_network` has asked for in one clear line

    return ImportedNetwork(
        role="encoder",
        layout=WEBER,
        network="convnext",
        settings={**settings, "in_channels": 1},
        state=sum_input_planes(read),
        is_average=False,
        facts={"colours": planes},
    )


def _torchvision_name(name: Any) -> Any:
    return name.removeprefix("module.").removeprefix("model.") if isinstance(name, str) else name
