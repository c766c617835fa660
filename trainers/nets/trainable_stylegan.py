"""StyleGAN's generator while it grows: mapping and synthesis, equalised layers, a gray layer for every level, and the fade between two."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks.stylegan import StyleGenerator, StyleSettings, blurred, styled
from trainers.nets.blockwise import gray
from trainers.nets.equalised import in_float32
from trainers.nets.mapping_network import GAIN, MappingNetwork, MappingSettings, ScaledLinear
from trainers.nets.pggan_generator import folded


class GrowingStylegan(nn.Module):
    """`mapping` z -> w, and `synthesis` w, noise -> films: what one optimiser moves and one average follows."""

    def __init__(self, settings: StyleSettings, mapping: MappingSettings) -> None:
        super().__init__()
        self.mapping = MappingNetwork(mapping)
        self.synthesis = GrowingSynthesis(settings)


class GrowingSynthesis(nn.Module):
    """w [N, layers, code_size] -> films [N, 1, r, r] float32, nominally in [-1, 1] and not clamped. Level 0 makes 4x4 pixels.

    The architecture is that of `engine.networks.stylegan`, whose names its layers have; noise is given, since in training each film has
    its own. All levels are there from the start, so nothing but `level` changes as it grows; layers above it get no gradient.
    """

    def __init__(self, settings: StyleSettings) -> None:
        super().__init__()
        self.settings = settings
        widths = settings.channels
        self.constant = nn.Parameter(torch.ones(1, widths[0], 4, 4))
        self.layers = nn.ModuleList(GrowingStyleLayer(at, settings) for at in range(settings.layers))
        self.to_gray = nn.ModuleList(ScaledLinear(width, 1, gain=1.0) for width in widths)

    @property
    def top(self) -> int:
        """The highest level."""
        return len(self.to_gray) - 1

    def forward(self, codes: Tensor, noise: Tensor, level: int, alpha: Tensor | float | None = None) -> Tensor:
        """Films of 4 * 2^level pixels a side. `codes` [N, 2 (level + 1), code_size], the w of each layer; `noise` [N, noise_size(level)].

        `alpha`: the share of the level below, enlarged, while the level fades in (1: it alone).
        """
        planes = noise_planes(noise, level)
        below = x = self.constant.expand(codes.shape[0], -1, -1, -1).contiguous(memory_format=torch.channels_last)
        for at, plane in enumerate(planes):
            if at == 2 * level:
                below = x
            x = self.layers[at](x, plane, codes[:, at])
        film = self._film(x, level)
        if alpha is not None:
            old = F.interpolate(self._film(below, level - 1), scale_factor=2.0, mode="nearest")
            film = film + alpha * (old - film)
        return film

    def plain(self, level: int, noise: Tensor) -> tuple[StyleSettings, dict[str, Tensor]]:
        """Settings and weights, with the scales multiplied in, of the `StyleGenerator` that ends at `level`.

        `noise` [1, noise_size(level)]: the one realisation that it keeps.
        """
        settings = replace(self.settings, channels=self.settings.channels[: level + 1])
        weight, bias = self._gray(level).scaled()
        tensors = {"constant": self.constant, "to_gray.weight": weight[..., None, None], "to_gray.bias": bias}
        for at, plane in enumerate(noise_planes(noise, level)):
            layer = self.layers[at]
            assert isinstance(layer, GrowingStyleLayer)
            tensors |= {f"layers.{at}.{name}": value for name, value in layer.plain().items()}
            tensors[f"layers.{at}.noise"] = plane
        with torch.device("meta"):
            wanted = StyleGenerator(settings).state_dict()
        return settings, {name: tensors[name].detach().clone() for name in wanted}

    def _film(self, x: Tensor, level: int) -> Tensor:
        weight, bias = self._gray(level).scaled()
        return gray(x, weight.flatten(), bias)  # [N, 1, r, r]

    def _gray(self, level: int) -> ScaledLinear:
        layer = self.to_gray[level]
        assert isinstance(layer, ScaledLinear)
        return layer


class GrowingStyleLayer(nn.Module):
    """`engine.networks.stylegan.StyleLayer` with equalised weights: N(0, 1) times sqrt(2 / fan_in); biases are not scaled."""

    def __init__(self, at: int, settings: StyleSettings) -> None:
        super().__init__()
        width, below = settings.channels[at // 2], settings.channels[(at - 1) // 2]
        self.upsamples, self.blurs = at > 0 and at % 2 == 0, settings.blur
        self.leak, self.epsilon = settings.leak, settings.epsilon
        self.weight = nn.Parameter(torch.randn(width, below, 3, 3)) if at else None
        self.scale = GAIN / math.sqrt(9 * below)
        self.bias = nn.Parameter(torch.zeros(width))
        self.strength = nn.Parameter(torch.zeros(width))
        self.style = ScaledLinear(settings.code_size, 2 * width, gain=1.0)

    def forward(self, x: Tensor, noise: Tensor, code: Tensor) -> Tensor:
        """x [N, C, r, r], noise [N, 1, s, s], code [N, code_size] -> [N, D, s, s]; s is r, or twice it where a level begins."""
        with in_float32(code):
            style = self.style(code)
        if self.weight is not None:
            weight = self.weight * self.scale
            x = F.conv_transpose2d(x, folded(weight), stride=2, padding=1) if self.upsamples else F.conv2d(x, weight, padding=1)
        if self.upsamples and self.blurs:
            x = blurred(x)
        return styled(x, noise, self.strength, self.bias, style, leak=self.leak, epsilon=self.epsilon)

    def plain(self) -> dict[str, Tensor]:
        """The weights of a `StyleLayer`, but for its noise."""
        weight, bias = self.style.scaled()
        found = {"bias": self.bias, "strength": self.strength, "style.weight": weight, "style.bias": bias}
        return found if self.weight is None else found | {"conv.weight": self.weight * self.scale}


def noise_size(level: int) -> int:
    """Values of noise that a film of a level takes: two planes of its own side and of each one below."""
    return sum(2 * (4 << at) ** 2 for at in range(level + 1))


def noise_planes(noise: Tensor, level: int) -> list[Tensor]:
    """[N, noise_size(level)] as a plane [N, 1, r, r] for each style layer, lowest first."""
    sides = [4 << at // 2 for at in range(2 * (level + 1))]
    parts = torch.split(noise, [side**2 for side in sides], dim=1)
    return [part.reshape(-1, 1, side, side) for part, side in zip(parts, sides, strict=True)]
