"""The mapping network beside a StyleGAN's codec: the weights that a trainer writes, made plain, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.encode.codec import load_codec, save_codec
from engine.encode.codec_spec import CodecSpec, CodeSpec, NetworkSpec, WeightsFile
from engine.encode.mapping_file import MAPPING, load_mapping, mapping_beside
from engine.encode.weights import sha256
from engine.errors import CodecError, ConfigError
from engine.latents.starts import Draws, prior_of
from engine.networks.registry import build_network
from engine.recipe import PixelRecipe
from trainers.nets.mapping_network import MappingNetwork, MappingSettings
from trainers.nets.stylegan_file import save_mapping

SIZE = 6


def write_stylegan(folder: Path, *, space: str = "w") -> tuple[Path, MappingNetwork]:
    """A tiny StyleGAN's codec as `train stylegan` leaves it, and its mapping network as it was trained."""
    torch.manual_seed(3)
    mapping = MappingNetwork(MappingSettings(code_size=SIZE, layers=2)).eval().requires_grad_(False)
    mapping.find_mean(torch.randn(500, SIZE))
    settings = {"channels": [6, 4, 4], "code_size": SIZE, "space": space}
    generator = build_network("generator", "stylegan", settings)
    shape = (6 if space == "w+" else 1, SIZE)
    spec = CodecSpec(
        name="tiny-stylegan",
        encoder=None,
        generator=NetworkSpec(network="stylegan", settings=settings, weights="generator.safetensors"),
        code=CodeSpec(dims=("layer", "channel"), shape=shape, gauge="none", mean=WeightsFile(weights="mean.safetensors")),
        recipe=PixelRecipe(resolution=16),
    )
    mean = mapping.mean.expand(shape).clone()
    save_codec(folder, spec, weights={"generator.safetensors": generator.state_dict(), "mean.safetensors": {"mean": mean}})
    save_mapping(folder / MAPPING, mapping)
    return folder, mapping


def test_it_makes_the_trained_networks_codes(tmp_path: Path) -> None:
    folder, trained = write_stylegan(tmp_path)
    z = torch.randn(5, SIZE)
    plain = load_mapping(folder / MAPPING)
    assert torch.equal(plain(z), trained(z))
    assert torch.equal(plain.mean, trained.mean)
    assert not any(weight.requires_grad for weight in plain.parameters())


@pytest.mark.parametrize("space", ["w", "w+"])
def test_starts_are_drawn_by_it(tmp_path: Path, space: str) -> None:
    folder, trained = write_stylegan(tmp_path, space=space)
    codec = load_codec(folder)
    with pytest.raises(ConfigError, match="codec does not say how its codes lie"):
        prior_of(codec)
    found = mapping_beside(folder, codec)
    assert found is not None
    prior = prior_of(codec, mapping=found)
    assert prior.origin == f"mapping sha256:{sha256((folder / MAPPING).read_bytes())}"
    w = trained(torch.randn(20_000, SIZE))
    assert prior.scale == pytest.approx(float((w - w.mean(dim=0)).square().mean().sqrt()), rel=0.05)
    starts = torch.stack([Draws(seed=2, truncation=4.0).start(prior, "x", number, 0.0).code for number in range(2000)])
    assert starts.shape[1:] == codec.code_shape
    assert torch.equal(starts, starts[:, :1].expand(-1, codec.code_shape[0], -1))  # one w for all layers
    assert starts[:, 0].mean(dim=0).numpy() == pytest.approx(w.mean(dim=0).numpy(), abs=0.1 * prior.scale + 0.05 * float(w.std()))
    assert np.cov(starts[:, 0].numpy().T) == pytest.approx(np.cov(w.numpy().T), abs=0.15 * prior.scale**2 + 1e-6)


def test_another_codecs_a_damaged_and_a_strange_file_are_one_line(tmp_path: Path) -> None:
    folder, trained = write_stylegan(tmp_path)
    codec = load_codec(folder)
    file = folder / MAPPING
    trained.mean.add_(1.0)
    save_mapping(file, trained)
    with pytest.raises(CodecError, match=rf"mapping network is of another codec than tiny-stylegan, its codes have another mean: {file}"):
        mapping_beside(folder, codec)
    codec.spec = replace(codec.spec, code=replace(codec.spec.code, mean=None))
    assert mapping_beside(folder, codec)  # a codec that has no mean cannot tell
    save_mapping(file, MappingNetwork(MappingSettings(code_size=5, layers=1)))
    with pytest.raises(CodecError, match="makes codes of 5 entries, those of codec tiny-stylegan have 6"):
        mapping_beside(folder, codec)
    torn = file.read_bytes()
    file.write_bytes(torn[:-8])
    with pytest.raises(CodecError, match=rf"mapping network cannot be read \(SafetensorError\): {file}"):
        mapping_beside(folder, codec)
    file.write_bytes(next(folder.glob("generator-*")).read_bytes())
    with pytest.raises(CodecError, match="holds no mapping network of this trainer"):
        mapping_beside(folder, codec)
    file.unlink()
    assert mapping_beside(folder, codec) is None
