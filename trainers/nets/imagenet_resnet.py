"""Puts ImageNet's published weights into the ResNet-50 of a detector; they are never downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from engine.errors import ConfigError
from engine.refine.weight_files import folders_of, read_weights, sha256_of

FILE = "resnet50-0676ba61.pth"  # as torchvision publishes it
_ADVICE = "name the file with --set imagenet_weights=FILE, or start afresh with --set imagenet_weights=none"
_FIRST, _RGB = "conv1.weight", 3


@torch.no_grad()
def load_imagenet_resnet(body: nn.Module, place: str) -> str:
    """Fills the stages `body`, whose first convolution may see more planes than RGB: weights of those stay as they are.

    `place` is "hub", a folder that holds FILE, or the file (torchvision's, or safetensors). Returns the file's digest, `sha256:...`. Raises
    ConfigError where it is missing or holds other weights; nothing but tensors is unpickled.
    """
    path = Path(place)
    if place == "hub" or path.is_dir():
        path = (folders_of(None)[0] if place == "hub" else path) / FILE
    if not path.is_file():
        raise ConfigError(f"weights of resnet50 were not found; {_ADVICE}: {path}")
    shapes = {name: tuple(value.shape) for name, value in body.state_dict().items()}
    shapes[_FIRST] = (shapes[_FIRST][0], _RGB, *shapes[_FIRST][2:])
    state = read_weights(path, shapes)
    first = cast("Tensor", body.get_parameter(_FIRST))
    state[_FIRST] = torch.cat([state[_FIRST].to(first.dtype), first[:, _RGB:]], dim=1)
    body.load_state_dict(state)
    return sha256_of(path)
