"""A trained discriminator as a safetensors file beside its codec: its weights, and in the header what they belong to."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from engine.encode.codec_directory import write_aside
from engine.encode.weights import fill, read_tensors
from engine.errors import TrainError
from engine.networks.settings import read_settings
from trainers.nets.pggan_discriminator import DiscriminatorSettings, GrowingDiscriminator

DISCRIMINATOR = "discriminator.safetensors"
_FORMAT = "latentray-discriminator-1"
_HEADER = "latentray"  # one entry: safetensors writes several in any order


def save_discriminator(file: Path, network: GrowingDiscriminator, level: int) -> None:
    """Writes what the network has up to `level`, aside and then renamed: equal bytes for equal weights, which are not folded."""
    settings = replace(network.settings, channels=network.settings.channels[: level + 1])
    with torch.device("meta"):
        wanted = GrowingDiscriminator(settings).state_dict()
    state = network.state_dict()
    tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(wanted)}
    header = json.dumps({"format": _FORMAT, "settings": asdict(settings)})
    try:
        write_aside(file, save(tensors, metadata={_HEADER: header}))
    except OSError as error:
        raise TrainError(f"discriminator cannot be written ({error.strerror}): {file}") from None


def load_discriminator(file: Path, *, device: torch.device) -> GrowingDiscriminator:
    """The network of a file; its highest level, `top`, is the one it was saved at. Raises TrainError where the file is none of these."""
    try:
        with safe_open(file, framework="pt") as opened:
            header = json.loads((opened.metadata() or {}).get(_HEADER, "{}"))
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            raise TrainError(f"safetensors file holds no discriminator of this trainer: {file}")
        stored, data = header["settings"], file.read_bytes()
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainError(f"discriminator cannot be read ({type(error).__name__}): {file}") from None
    settings = read_settings(DiscriminatorSettings, stored, file.name)
    with torch.device("meta"):
        network = GrowingDiscriminator(settings)
    fill(network, read_tensors(file.name, data), file.name)
    moved: GrowingDiscriminator = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved
