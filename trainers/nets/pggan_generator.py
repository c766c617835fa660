"""The generator of a progressive GAN while it grows: equalised layers, a gray layer for every level, and the fade from one to the next."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks.pggan import PgganGenerator, PgganSettings
from engine.networks.pixel_norm import pixel_norm
from trainers.nets.blockwise import gray, leaky_pixel_norm
from trainers.nets.equalised import EqualConv, EqualLinear, equalised_parts, in_float32


class GrowingGenerator(nn.Module):
    """z [N, 1, code_size] -> films [N, 1, r, r] float32, nominally in [-1, 1] and not clamped. Level 0 makes 4x4 pixels.

    The architecture is that of `engine.networks.pggan`, whose names its layers have. All levels are there from the start, so nothing but
    `level` changes as it grows; layers above it get no gradient. Upsampling and the convolution after it are one transposed convolution.
    """

    def __init__(self, settings: PgganSettings) -> None:
        super().__init__()
        self.settings = settings
        widths = settings.channels
        self.linear = EqualLinear(settings.code_size, widths[0] * 16)
        self.first = EqualConv(widths[0], widths[0], 3)
        self.levels = nn.ModuleList(GrowingLevel(below, width, settings) for below, width in pairwise(widths))
        self.to_gray = nn.ModuleList(EqualConv(width, 1, 1) for width in widths)

    @property
    def top(self) -> int:
        """The highest level."""
        return len(self.levels)

    def forward(self, codes: Tensor, level: int, alpha: Tensor | float | None = None) -> Tensor:
        """Films of 4 * 2^level pixels a side. `alpha`: the share of the level below, enlarged, while the level fades in (1: it alone)."""
        s = self.settings
        z = pixel_norm(codes.flatten(1), epsilon=s.epsilon)  # [N, code_size]
        x = F.leaky_relu(self.linear(z), s.leak).reshape(z.shape[0], -1, 4, 4).contiguous(memory_format=torch.channels_last)
        if s.norm_after_linear:
            x = pixel_norm(x, epsilon=s.epsilon)
        below = x = leaky_pixel_norm(self.first(x), leak=s.leak, epsilon=s.epsilon)
        for block in self.levels[:level]:
            below, x = x, block(x)
        film = self._film(x, level)
        if alpha is not None:
            old = F.interpolate(self._film(below, level - 1), scale_factor=2.0, mode="nearest")
            film = film + alpha * (old - film)
        return film * 2 - 1 if s.output_range == "unit" else film

    def plain(self, level: int) -> tuple[PgganSettings, dict[str, Tensor]]:
        """Settings and weights, with the scales multiplied in, of the `PgganGenerator` that ends at `level`."""
        settings = replace(self.settings, channels=self.settings.channels[: level + 1])
        scaled = {name: layer.scaled() for name, layer in equalised_parts(self).items()}
        scaled["to_gray"] = scaled[f"to_gray.{level}"]
        with torch.device("meta"):
            wanted = PgganGenerator(settings).state_dict()
        tensors = {}
        for name in wanted:
            layer, _, part = name.rpartition(".")
            tensors[name] = scaled[layer][part == "bias"].detach().clone()
        return settings, tensors

    def _film(self, x: Tensor, level: int) -> Tensor:
        layer = self.to_gray[level]
        assert isinstance(layer, EqualConv)
        weight, bias = layer.scaled()
        return gray(x, weight.flatten(), bias)  # [N, 1, r, r]


class GrowingLevel(nn.Module):
    """Twice the resolution: nearest neighbour, then two convolutions, each followed by leaky ReLU and pixel norm."""

    def __init__(self, below: int, width: int, settings: PgganSettings) -> None:
        super().__init__()
        self.leak, self.epsilon = settings.leak, settings.epsilon
        self.first = EqualConv(below, width, 3)
        self.second = EqualConv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.first.scaled()
        x = F.conv_transpose2d(x, folded(weight), bias, stride=2, padding=1)
        x = leaky_pixel_norm(x, leak=self.leak, epsilon=self.epsilon)
        return leaky_pixel_norm(self.second(x), leak=self.leak, epsilon=self.epsilon)


def folded(weight: Tensor) -> Tensor:
    """Weights [D, C, 3, 3] -> [C, D, 4, 4]: upsampling by 2 and the 3x3 convolution after it as one transposed convolution of stride 2.

    Differentiable; what `engine.networks.frozen_ops.folded_upsampling` makes once for weights that no longer change.
    """
    d, c = weight.shape[:2]
    side = weight.new_tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])  # tap of 3 -> taps of 4, turned around
    with in_float32(weight):
        taps = weight.permute(1, 0, 2, 3).reshape(c * d, 9) @ torch.kron(side, side)  # [C D, 16]
    return taps.reshape(c, d, 4, 4)
