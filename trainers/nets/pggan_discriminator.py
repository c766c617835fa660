"""The discriminator of a progressive GAN while it grows: gray layers for all levels, and a plane with the spread in a group of films."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import CodecError
from trainers.nets.double_backward import conv, leaky_relu_
from trainers.nets.equalised import EqualConv, EqualLinear, in_float32

_SPREAD_EPSILON = 1e-8


@dataclass(frozen=True, kw_only=True)
class DiscriminatorSettings:
    """Widths from 4x4 up, as the generator's. `output_range`: that of the generator, "unit" where the network sees films in [0, 1]."""

    channels: tuple[int, ...] = (512, 512, 512, 512, 256, 128, 64, 32, 16)
    output_range: str = "unit"
    leak: float = 0.2

    def __post_init__(self) -> None:
        if not 1 <= len(self.channels) <= 11 or not all(1 <= width <= 8192 for width in self.channels):
            raise CodecError(f"discriminator.channels needs 1 to 11 widths of 1 to 8192: {self.channels}")
        if self.output_range not in ("unit", "signed"):
            raise CodecError(f"discriminator.output_range must be one of unit, signed: {self.output_range}")
        if not 0 <= self.leak < 1:
            raise CodecError(f"discriminator.leak must be 0 or more and under 1: {self.leak}")


class GrowingDiscriminator(nn.Module):
    """Films [N, 1, r, r] in [-1, 1], r = 4 * 2^level -> scores [N] float32, higher for films that look real. Twice differentiable in films.

    The generator's mirror image (Karras et al. 2018, table 2; Segal et al. 2021: no activation after a gray layer, no norm).
    """

    def __init__(self, settings: DiscriminatorSettings) -> None:
        super().__init__()
        self.settings = settings
        widths = settings.channels
        self.from_gray = nn.ModuleList(EqualConv(1, width, 1) for width in widths)
        self.levels = nn.ModuleList(ShrinkingLevel(below, width, settings.leak) for below, width in pairwise(widths))
        self.first = EqualConv(widths[0] + 1, widths[0], 3)
        self.second = EqualConv(widths[0], widths[0], 4)
        self.linear = EqualLinear(widths[0], 1)

    @property
    def top(self) -> int:
        """The highest level."""
        return len(self.levels)

    @property
    def slope(self) -> float:
        """The gradient norm, in films of [-1, 1], that a penalty aims at: 1 in the range that the network sees."""
        return 0.5 if self.settings.output_range == "unit" else 1.0

    def forward(self, films: Tensor, level: int, alpha: float | None = None, *, group: int | None = None) -> Tensor:
        """`alpha`: the share of the level below, which sees the film at half its size, while the level fades in (1: it alone).

        `group`: over how many consecutive films the spread is taken (None: all); it divides N.
        """
        if self.settings.output_range == "unit":
            films = films * 0.5 + 0.5
        x = self._enter(films, level)
        if alpha is not None:
            x = x + alpha * (self._from_gray(F.avg_pool2d(films, 2), level - 1) - x)
        for block in self.levels[: max(level - 1, 0)][::-1]:
            x = block(x)
        x = torch.cat([x, spread(x, group or len(x))], dim=1)  # [N, C + 1, 4, 4]
        for layer in (self.first, self.second):
            x = leaky_relu_(conv(x, *layer.scaled(), padding=layer.padding), self.settings.leak)
        with in_float32(x):
            scores: Tensor = self.linear(_wide(x).flatten(1))
        return scores.squeeze(1)

    def _enter(self, films: Tensor, level: int) -> Tensor:
        """The gray layer and the block of the highest level."""
        if level == 0:
            return self._from_gray(films, 0)
        gray, block = self.from_gray[level], self.levels[level - 1]
        assert isinstance(gray, EqualConv)
        assert isinstance(block, ShrinkingLevel)
        return block.from_films(films, gray)

    def _from_gray(self, films: Tensor, level: int) -> Tensor:
        layer = self.from_gray[level]
        assert isinstance(layer, EqualConv)
        return conv(films, *layer.scaled(), padding=0)


class ShrinkingLevel(nn.Module):
    """Half the resolution: two convolutions, each followed by leaky ReLU, then the mean of 2x2 pixels."""

    def __init__(self, below: int, width: int, leak: float) -> None:
        super().__init__()
        self.leak = leak
        self.first = EqualConv(width, width, 3)
        self.second = EqualConv(width, below, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self._rest(conv(x, *self.first.scaled(), padding=1))

    def from_films(self, films: Tensor, gray: EqualConv) -> Tensor:
        """The same of a film's gray layer, which has no activation: both are one convolution of the film and of a plane of ones.

        The plane carries the gray layer's bias, which ends where the padding begins. 2 channels in instead of the level's width.
        """
        weight, bias = self.first.scaled()
        gray_weight, gray_bias = gray.scaled()
        with in_float32(films):
            both = torch.stack([gray_weight.flatten(), gray_bias])  # [2, C]
            joined = torch.einsum("dcij,pc->dpij", weight, both)  # [D, 2, 3, 3]
        planes = torch.cat([films, torch.ones_like(films)], dim=1).contiguous(memory_format=torch.channels_last)
        return self._rest(conv(planes, joined, bias, padding=1))

    def _rest(self, x: Tensor) -> Tensor:
        x = leaky_relu_(x, self.leak)
        x = leaky_relu_(conv(x, *self.second.scaled(), padding=1), self.leak)
        return F.avg_pool2d(x, 2)


def spread(x: Tensor, group: int) -> Tensor:
    """x [N, C, H, W] -> [N, 1, H, W]: the standard deviation over each `group` consecutive films, averaged over channels and pixels.

    Karras et al. 2018, section 3; in float32 at least. The same plane for all films of a group.
    """
    n, c, h, w = x.shape
    assert n % group == 0, f"{n} films are no whole groups of {group}"
    grouped = _wide(x).reshape(n // group, group, c, h, w)
    away = grouped - grouped.mean(dim=1, keepdim=True)
    deviation = (away.square().mean(dim=1) + _SPREAD_EPSILON).sqrt()  # [N / group, C, H, W]
    each = deviation.mean(dim=(1, 2, 3)).reshape(-1, 1, 1, 1, 1).expand(-1, group, 1, h, w)
    return each.reshape(n, 1, h, w).to(x.dtype)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
