"""StyleGAN's mapping network as a safetensors file beside its codec: what draws codes for trainings that need films of random codes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from engine.encode.codec_directory import write_aside
from engine.encode.weights import fill, read_tensors
from engine.errors import TrainError
from engine.networks.settings import read_settings
from trainers.nets.mapping_network import MappingNetwork, MappingSettings

MAPPING = "mapping.safetensors"
_FORMAT = "latentray-mapping-1"
_HEADER = "latentray"  # one entry: safetensors writes several in any order


def save_mapping(file: Path, network: MappingNetwork) -> None:
    """Writes the network with its mean, aside and then renamed: equal bytes for equal weights, which are not folded."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(network.state_dict().items())}
    header = json.dumps({"format": _FORMAT, "settings": asdict(network.settings)})
    try:
        write_aside(file, save(tensors, metadata={_HEADER: header}))
    except OSError as error:
        raise TrainError(f"mapping network cannot be written ({error.strerror}): {file}") from None


def load_mapping(file: Path, *, device: torch.device) -> MappingNetwork:
    """The network of a file, fixed: z [N, code_size] ~ N(0, I) -> w [N, code_size]. Raises TrainError where the file is none of these."""
    try:
        with safe_open(file, framework="pt") as opened:
            header = json.loads((opened.metadata() or {}).get(_HEADER, "{}"))
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            raise TrainError(f"safetensors file holds no mapping network of this trainer: {file}")
        stored, data = header["settings"], file.read_bytes()
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainError(f"mapping network cannot be read ({type(error).__name__}): {file}") from None
    settings = read_settings(MappingSettings, stored, file.name)
    with torch.device("meta"):
        network = MappingNetwork(settings)
    fill(network, read_tensors(file.name, data), file.name)
    return network.to(device).eval().requires_grad_(False)
