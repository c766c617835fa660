"""A trained discriminator as a safetensors file beside its codec: its weights, and in the header what they belong to."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from engine.encode.weights import fill, read_tensors
from engine.errors import TrainError
from engine.networks.settings import read_settings
from trainers.nets.pggan_discriminator import DiscriminatorSettings, GrowingDiscriminator

DISCRIMINATOR = "discriminator.safetensors"
_FORMAT = "latentray-discriminator-1"


def save_discriminator(file: Path, network: GrowingDiscriminator, level: int) -> None:
    """Writes what the network has up to `level`, aside and then renamed. Weights are not folded: they go on being trained."""
    settings = replace(network.settings, channels=network.settings.channels[: level + 1])
    with torch.device("meta"):
        wanted = GrowingDiscriminator(settings).state_dict()
    state = network.state_dict()
    tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(wanted)}
    partial = file.with_name(file.name + ".partial")
    try:
        partial.write_bytes(save(tensors, metadata={"format": _FORMAT, "settings": json.dumps(asdict(settings))}))
        partial.replace(file)
    except OSError as error:
        raise TrainError(f"discriminator cannot be written ({error.strerror}): {file}") from None
    finally:
        partial.unlink(missing_ok=True)


def load_discriminator(file: Path, *, device: torch.device) -> GrowingDiscriminator:
    """The network of a file; its highest level, `top`, is the one it was saved at. Raises TrainError where the file is none of these."""
    try:
        with safe_open(file, framework="pt") as opened:
            about = opened.metadata() or {}
        data = file.read_bytes()
    except (OSError, SafetensorError) as error:
        raise TrainError(f"discriminator cannot be read ({type(error).__name__}): {file}") from None
    if about.get("format") != _FORMAT:
        raise TrainError(f"safetensors file holds no discriminator of this trainer: {file}")
    settings = read_settings(DiscriminatorSettings, json.loads(about["settings"]), file.name)
    with torch.device("meta"):
        network = GrowingDiscriminator(settings)
    fill(network, read_tensors(file.name, data), file.name)
    moved: GrowingDiscriminator = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved
