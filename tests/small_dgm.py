"""A codec that decomposes, tiny and with random weights, for tests of what is made of its parts."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch

from engine.encode.codec import save_codec
from engine.encode.codec_spec import CodecSpec, CodeSpec, NetworkSpec
from engine.networks.dgm import DgmEncoder, DgmGenerator, DgmSettings
from engine.recipe import PixelRecipe

SETTINGS = DgmSettings(resolution=32, widths=(4, 6), blocks=1)


def write_dgm(folder: Path, *, residue: float = 0.3, seed: int = 0, reconstruct: str = "sum") -> Path:
    """Writes the codec. `residue`: the scale of its residue maps' last layer, 0 for maps of nothing; `reconstruct`: sum or joint."""
    torch.manual_seed(seed)
    settings = replace(SETTINGS, reconstruct=reconstruct)
    encoder, generator = DgmEncoder(settings), DgmGenerator(settings)
    with torch.no_grad():
        for weight in generator.residue.levels[-1].parameters():
            weight.mul_(residue)
    networks = {"encoder": encoder, "generator": generator}
    specs = {role: NetworkSpec(network="dgm", settings=asdict(settings), weights=f"{role}.safetensors") for role in networks}
    code = CodeSpec(dims=("channel", "y", "x"), shape=SETTINGS.code_shape, gauge="none", mean=None)
    spec = CodecSpec(name="tiny-dgm", code=code, recipe=PixelRecipe(resolution=SETTINGS.resolution), **specs)
    save_codec(folder, spec, weights={f"{role}.safetensors": network.state_dict() for role, network in networks.items()})
    return folder
