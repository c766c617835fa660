"""Puts ImageNet's published weights into a DenseNet whose last layer is new; they are never downloaded."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.errors import ConfigError
from engine.networks.densenet import DenseNetClassifier, published_shapes
from engine.refine.weight_files import folders_of, read_weights, sha256_of

# by layers of the dense blocks, as torchvision publishes them
_FILES: dict[tuple[int, ...], str] = {(6, 12, 24, 16): "densenet121-a639ec97.pth", (6, 12, 36, 24): "densenet161-8d451a50.pth"}
_ADVICE = "name the file with --set imagenet_weights=FILE, or start afresh with --set imagenet_weights=none"


@torch.no_grad()
def load_imagenet(network: DenseNetClassifier, place: str) -> str:
    """Takes all but the last layer from a file: `place` is "hub", a folder with torchvision's file, or a file (that, or safetensors).

    Returns the file's digest, `sha256:...`. Raises ConfigError where it is missing or holds other weights; nothing but tensors is
    unpickled.
    """
    path = Path(place)
    if place == "hub" or path.is_dir():
        folder = folders_of(None)[0] if place == "hub" else path
        path = folder / _FILES.get(network.settings.blocks, _FILES[6, 12, 24, 16])
    if not path.is_file():
        raise ConfigError(f"weights of densenet were not found; {_ADVICE}: {path}")
    state = read_weights(path, published_shapes(network))
    missing = network.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys, "shapes and names were checked"
    return sha256_of(path)
