"""ConvNeXt-Small on films of 1024x1024 with random weights, as a codec directory: what it costs does not depend on what it has learnt."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.refinement.random_codec import random_codec
from engine.encode.codec import save_codec
from engine.networks.convnext import ConvNextEncoder, ConvNextSettings
from engine.networks.pggan import PgganGenerator

NARROW = (8,) * 9  # channels of a generator that makes 1024x1024 films and costs next to nothing
WHOLE, TINY = ConvNextSettings(), ConvNextSettings(depths=(1, 1), widths=(16, 32))


def save_convnext_codec(folder: Path, *, tiny: bool) -> Path:
    """The same weights every time; `tiny`: a small one on films of 64x64, to see that everything runs. Returns its directory."""
    settings, channels = (TINY, NARROW[:5]) if tiny else (WHOLE, NARROW)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = ConvNextEncoder(settings)
    codec = random_codec(channels, encoder=encoder, resolution=4 * 2 ** (len(channels) - 1))
    generator = codec.generator.network
    assert isinstance(generator, PgganGenerator)
    assert generator.to_gray.bias is not None
    with torch.no_grad():  # brighter than middle gray: beside a film of next to nothing, half precision would fail the parity gate
        generator.to_gray.weight.mul_(0.25)
        generator.to_gray.bias.fill_(0.8)
    assert codec.spec.encoder is not None
    codec.spec.encoder.settings.update({name: list(each) if isinstance(each, tuple) else each for name, each in asdict(settings).items()})
    weights = {"encoder.safetensors": encoder.state_dict(), "generator.safetensors": generator.state_dict()}
    out = folder / f"convnext-{'tiny-64' if tiny else 'small-1024'}"
    save_codec(out, codec.spec, weights=weights)
    return out
