"""A codec of a tiny progressive GAN generator with random weights, and no encoder: what coarse heads and their cost are tested on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from engine.encode.codec import save_codec
from engine.encode.codec_spec import CodecSpec, CodeSpec, NetworkSpec, WeightsFile
from engine.networks.registry import build_network
from engine.recipe import PixelRecipe

WIDTHS = (12, 12, 8, 8, 4, 4, 4)
CODE_SIZE = 16


def make_pggan_codec(folder: Path, *, resolution: int = 64, loss: str = "mse=1") -> Path:
    """A codec directory for films of `resolution`, 8 to 256."""
    levels = resolution.bit_length() - 2
    settings = {"channels": list(WIDTHS[:levels]), "code_size": CODE_SIZE, "output_range": "signed"}  # random films lie around 0
    generator = NetworkSpec(network="pggan", settings=settings, weights="generator.safetensors")
    spec = CodecSpec(
        name="tiny-pggan",
        encoder=None,
        generator=generator,
        code=CodeSpec(dims=("layer", "channel"), shape=(1, CODE_SIZE), gauge="sphere", mean=WeightsFile(weights="mean.safetensors")),
        recipe=PixelRecipe(resolution=resolution),
        provenance={"weights": "random"},
    )
    torch.manual_seed(7)
    network = build_network("generator", generator.network, generator.settings)
    weights = {"generator.safetensors": network.state_dict(), "mean.safetensors": {"mean": torch.randn(1, CODE_SIZE)}}
    save_codec(folder, replace(spec, loss=loss), weights=weights)
    return folder
