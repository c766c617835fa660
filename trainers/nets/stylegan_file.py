"""StyleGAN's mapping network as a safetensors file beside its codec: what draws codes, here as it is trained."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.encode.mapping_file import FORMAT, MAPPING, WHAT
from engine.encode.network_file import NetworkFile
from engine.errors import TrainError
from engine.networks.stylegan_mapping import MappingSettings
from trainers.nets.mapping_network import MappingNetwork

__all__ = ["MAPPING", "load_mapping", "save_mapping"]

_KIND = NetworkFile(WHAT, FORMAT, TrainError)


def save_mapping(file: Path, network: MappingNetwork) -> None:
    """Writes the network with its mean. Raises TrainError where it cannot."""
    _KIND.write(file, network.settings, network.state_dict())


def load_mapping(file: Path, *, device: torch.device) -> MappingNetwork:
    """The network of a file, fixed: z [N, code_size] ~ N(0, I) -> w [N, code_size]. Raises TrainError where the file is none of these."""
    settings = _KIND.settings(file, MappingSettings)
    with torch.device("meta"):
        network = MappingNetwork(settings)
    _KIND.fill(file, network)
    return network.to(device).eval().requires_grad_(False)
