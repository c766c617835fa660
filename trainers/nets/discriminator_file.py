"""A trained discriminator as a safetensors file beside its codec."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from engine.encode.network_file import NetworkFile
from engine.errors import TrainError
from trainers.nets.pggan_discriminator import DiscriminatorSettings, GrowingDiscriminator

DISCRIMINATOR = "discriminator.safetensors"
_KIND = NetworkFile("discriminator", "latentray-discriminator-1", TrainError)


def save_discriminator(file: Path, network: GrowingDiscriminator, level: int) -> None:
    """Writes what the network has up to `level`. Raises TrainError where it cannot."""
    settings = replace(network.settings, channels=network.settings.channels[: level + 1])
    with torch.device("meta"):
        wanted = GrowingDiscriminator(settings).state_dict()
    state = network.state_dict()
    _KIND.write(file, settings, {name: state[name] for name in wanted})


def load_discriminator(file: Path, *, device: torch.device) -> GrowingDiscriminator:
    """The network of a file; its highest level, `top`, is the one it was saved at. Raises TrainError where the file is none of these."""
    settings = _KIND.settings(file, DiscriminatorSettings)
    with torch.device("meta"):
        network = GrowingDiscriminator(settings)
    _KIND.fill(file, network)
    moved: GrowingDiscriminator = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved
