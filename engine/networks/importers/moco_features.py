"""MoCo v2's ResNet-50 (He et al. 2020): the query encoder without its last layers, as plain tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from engine.networks.importers.imported_network import ImportedNetwork
from engine.networks.importers.tensor_table import TensorTable
from engine.networks.resnet50 import ResNet50Trunk

MOCO = "moco-v2"
_QUERY = "module.encoder_q."


def has_moco(state: Mapping[str, Any]) -> bool:
    """Whether a `state_dict` is of MoCo's training."""
    return any(name.startswith(_QUERY) for name in state)


def read_moco(state: Mapping[str, Any]) -> ImportedNetwork:
    """torchvision's names and shapes. What else the file has stays behind: the key encoder, the queue and the query's last layers."""
    table = TensorTable({name.removeprefix(_QUERY): value for name, value in state.items() if name.startswith(_QUERY)}, MOCO)
    with torch.device("meta"):
        shapes = ResNet50Trunk().published_shapes()
    read = {name: table.take(name, *shape) for name, shape in shapes.items()}
    return ImportedNetwork(role="features", layout=MOCO, network="resnet50", settings={}, state=read, is_average=False)
