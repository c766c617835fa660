"""StyleGAN's mapping network as a safetensors file beside its codec: what draws codes for trainings that need films of random codes."""

from __future__ import annotations

from pathlib import Path

import torch

from trainers.nets.mapping_network import MappingNetwork, MappingSettings
from trainers.nets.network_file import NetworkFile

MAPPING = "mapping.safetensors"
_KIND = NetworkFile("mapping network", "latentray-mapping-1")


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
