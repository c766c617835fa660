"""The generator of a progressively grown GAN (Karras et al. 2018), gray, in the variants of Segal et al. 2021 and of Karras."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import CodecError
from engine.networks.pixel_norm import pixel_norm


@dataclass(frozen=True, kw_only=True)
class PgganSettings:
    """Widths and variant. `channels` has one width a level, from 4x4 up; n of them make 4 * 2^(n-1) pixels a side.

    `norm_after_linear`: Segal has no pixel norm between the first linear layer and the first convolution, Karras and his followers have.
    `output_range`: "unit" for weights whose films lie in [0, 1] (Segal), "signed" for [-1, 1] (Karras).
    """

    channels: tuple[int, ...] = (512, 512, 512, 512, 256, 128, 64, 32, 16)
    code_size: int = 512
    norm_after_linear: bool = False
    output_range: str = "unit"
    leak: float = 0.2
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        if not 1 <= len(self.channels) <= 11:
            raise CodecError(f"pggan.channels needs 1 to 11 levels: {len(self.channels)}")
        if not all(1 <= width <= 8192 for width in (*self.channels, self.code_size)):
            raise CodecError(f"pggan widths must be 1 to 8192: {self.code_size}, {self.channels}")
        if self.output_range not in ("unit", "signed"):
            raise CodecError(f"pggan.output_range must be one of unit, signed: {self.output_range}")
        if not 0 <= self.leak < 1:
            raise CodecError(f"pggan.leak must be 0 or more and under 1: {self.leak}")
        if not 0 < self.epsilon <= 1e-2:
            raise CodecError(f"pggan.epsilon must be above 0 and at most 0.01: {self.epsilon}")


class PgganGenerator(nn.Module):
    """z [N, 1, code_size] -> films [N, 1, R, R], nominally in [-1, 1] and not clamped. The length of z has no effect.

    Weights are plain: a checkpoint trained with equalised learning rates has its constants multiplied in when it is imported.
    A finished model has one resolution, so the fade between two and the colour layers of lower levels are not here.
    """

    def __init__(self, settings: PgganSettings) -> None:
        super().__init__()
        self.settings = settings
        widths = settings.channels
        self.code_shape = (1, settings.code_size)
        self.resolution = 4 * 2 ** (len(widths) - 1)
        self.linear = nn.Linear(settings.code_size, widths[0] * 16)
        self.first = nn.Conv2d(widths[0], widths[0], 3, padding=1)
        self.levels = nn.ModuleList(PgganLevel(below, width, settings) for below, width in pairwise(widths))
        self.to_gray = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, latents: Tensor) -> Tensor:
        x = self._lowest(latents)
        for level in self.levels:
            x = level(x)
        film: Tensor = self.to_gray(x)  # [N, 1, R, R]
        return film * 2 - 1 if self.settings.output_range == "unit" else film

    def coarse_activations(self, latents: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The activations of each level but the last, from 4x4 up, as (resolution r, [N, C, r, r])."""
        x = self._lowest(latents)
        for level in self.levels:
            yield x.shape[-1], x
            x = level(x)

    def _lowest(self, latents: Tensor) -> Tensor:
        s = self.settings
        z = pixel_norm(latents.flatten(1), epsilon=s.epsilon).to(self.linear.weight.dtype)  # [N, code_size]
        x = F.leaky_relu(self.linear(z), s.leak).reshape(z.shape[0], -1, 4, 4)  # [N, C, 4, 4]
        if s.norm_after_linear:
            x = pixel_norm(x, epsilon=s.epsilon)
        return pixel_norm(F.leaky_relu(self.first(x), s.leak), epsilon=s.epsilon)


class PgganLevel(nn.Module):
    """Twice the resolution: nearest neighbour, then two convolutions, each followed by leaky ReLU and pixel norm."""

    def __init__(self, below: int, width: int, settings: PgganSettings) -> None:
        super().__init__()
        self.leak, self.epsilon = settings.leak, settings.epsilon
        self.first = nn.Conv2d(below, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        for conv in (self.first, self.second):
            x = pixel_norm(F.leaky_relu(conv(x), self.leak), epsilon=self.epsilon)
        return x
