"""Work is counted from the networks, by the formulas that are on paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.encode.codec import Codec
from engine.encode.codec_spec import CodecSpec, CodeSpec, NetworkSpec
from engine.encode.cost import codec_cost
from engine.networks.coarse import Head
from engine.networks.pca import PcaEncoder, PcaGenerator, PcaSettings
from engine.networks.pggan import PgganGenerator, PgganSettings
from engine.recipe import PixelRecipe


def make(generator: nn.Module, encoder: nn.Module | None, *, size: int, code: int) -> Codec:
    spec = CodecSpec(
        name="tiny",
        encoder=None,
        generator=NetworkSpec(weights="g.safetensors", network="any", settings={}),
        code=CodeSpec(dims=("layer", "channel"), shape=(1, code), gauge="none"),
        recipe=PixelRecipe(resolution=size),
    )
    return Codec(spec, encoder=encoder, generator=generator, mean=None, digest="")


def test_principal_components_are_two_products_of_matrices() -> None:
    settings = PcaSettings(resolution=16, components=5)
    cost = codec_cost(make(PcaGenerator(settings), PcaEncoder(settings), size=16, code=5))
    once = 2 * 5 * 16**2 / 1e9
    assert (cost.encode, cost.generate) == (pytest.approx(once), pytest.approx(once))
    assert cost.gradient == {16: pytest.approx(2 * once)}


def test_a_progressive_generator_by_its_folded_layers() -> None:
    widths, code = (8, 6, 4), 5
    codec = make(PgganGenerator(PgganSettings(channels=widths, code_size=code)), None, size=16, code=code)
    codec.coarse = {8: Head(resolution=8, weight=torch.zeros(1, 6, 1, 1), bias=torch.zeros(1), explained=1.0)}
    cost = codec_cost(codec)
    linear = 2 * code * 16 * widths[0]
    first = 2 * 9 * widths[0] ** 2 * 4**2
    levels = [2 * 16 * below * width * (side // 2) ** 2 + 2 * 9 * width**2 * side**2 for below, width, side in ((8, 6, 8), (6, 4, 16))]
    forward = {8: linear + first + levels[0], 16: linear + first + sum(levels)}
    assert cost.encode == 0
    assert cost.generate == pytest.approx(forward[16] / 1e9)
    assert cost.gradient == {
        side: pytest.approx(2 * flops / 1e9) for side, flops in forward.items()
    }  # a gradient costs what its film costs
