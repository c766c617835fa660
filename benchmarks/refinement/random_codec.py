"""Codecs of published sizes with random weights, in memory: what they cost does not depend on what they have learnt."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.encode.codec import Codec
from engine.encode.codec_spec import CodecSpec, CodeSpec, NetworkSpec
from engine.encode.gauge import project
from engine.networks.coarse import fit_heads
from engine.networks.pggan import PgganGenerator, PgganSettings
from engine.recipe import PixelRecipe

SEGAL = PgganSettings().channels  # 1024x1024, 23.1 million weights


def random_codec(channels: tuple[int, ...] = SEGAL, *, encoder: nn.Module | None = None, resolution: int = 0, heads: int = 0) -> Codec:
    """A codec with a progressive GAN's generator of these widths; the same weights every time.

    With `heads`, coarse heads are fitted to so many films. `resolution`: of the encoder's films, which may differ from the generator's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = PgganGenerator(PgganSettings(channels=channels))
        _initialise(generator)
    spec = CodecSpec(
        name="random",
        encoder=None if encoder is None else NetworkSpec(network="convnext", settings={}, weights="encoder.safetensors"),
        generator=NetworkSpec(network="pggan", settings={"channels": list(channels)}, weights="generator.safetensors"),
        code=CodeSpec(dims=("layer", "channel"), shape=generator.code_shape, gauge="sphere"),
        recipe=PixelRecipe(resolution=max(resolution or generator.resolution, 16)),
    )
    mean = torch.randn(generator.code_shape, generator=torch.Generator().manual_seed(1))
    codec = Codec(spec, encoder=encoder, generator=generator, mean=mean, digest="0" * 64)
    if heads:
        batches = torch.split(random_codes(codec, heads, seed=2), 16)
        codec.coarse = fit_heads(generator.coarse_activations, codec.generate, iter(batches))
    return codec


def random_codes(codec: Codec, n: int, *, seed: int) -> Tensor:
    """[n, *shape] from N(0, I) on the gauge, on the codec's device."""
    codes = torch.randn(n, *codec.code_shape, generator=torch.Generator().manual_seed(seed))
    return project(codes, codec.gauge).to(codec.device)


def _initialise(generator: PgganGenerator) -> None:
    """Films of middle gray with contrast that depends on the code, so that there is something to descend."""
    for module in generator.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, a=generator.settings.leak)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    with torch.no_grad():
        generator.to_gray.weight.mul_(0.1)
        assert generator.to_gray.bias is not None
        generator.to_gray.bias.fill_(0.5)
