"""The discriminator of a progressive GAN (Karras et al. 2018) with one logit a label in place of its score (Segal et al. 2021, 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import CodecError

SPREAD_OF_ONE = 1e-4  # what the plane with the spread in a group of films holds for a group of one: the root of its epsilon


@dataclass(frozen=True, kw_only=True)
class PgganDiscriminatorSettings:
    """Widths from 4x4 up, as the generator's; n of them see films of 4 * 2^(n-1) pixels a side.

    `output_range`: "unit" where the network sees films in [0, 1] (Segal), "signed" for [-1, 1].
    """

    channels: tuple[int, ...] = (512, 512, 512, 512, 256, 128, 64, 32, 16)
    output_range: str = "unit"
    leak: float = 0.2
    classes: int = 15

    def __post_init__(self) -> None:
        if not 1 <= len(self.channels) <= 11 or not all(1 <= width <= 8192 for width in self.channels):
            raise CodecError(f"pggan-discriminator.channels needs 1 to 11 widths of 1 to 8192: {self.channels}")
        if self.output_range not in ("unit", "signed"):
            raise CodecError(f"pggan-discriminator.output_range must be one of unit, signed: {self.output_range}")
        if not 0 <= self.leak < 1:
            raise CodecError(f"pggan-discriminator.leak must be 0 or more and under 1: {self.leak}")
        if not 1 <= self.classes <= 1000:
            raise CodecError(f"pggan-discriminator.classes must be 1 to 1000: {self.classes}")


class PgganDiscriminator(nn.Module):
    """Films [N, 1, R, R] in [-1, 1] -> logits [N, classes]. Weights are plain: the constants of equalised learning rates are in them.

    A film is judged alone: the spread over its group, which tells a GAN of missing variety, is that of a group of one.
    """

    def __init__(self, settings: PgganDiscriminatorSettings) -> None:
        super().__init__()
        self.settings = settings
        widths = settings.channels
        self.num_classes, self.num_features = settings.classes, widths[0]
        self.resolution = 4 * 2 ** (len(widths) - 1)
        self.from_gray = nn.Conv2d(1, widths[-1], 1)
        self.levels = nn.ModuleList(_ShrinkingLevel(below, width, settings.leak) for below, width in pairwise(widths))
        self.first = nn.Conv2d(widths[0] + 1, widths[0], 3, padding=1)
        self.second = nn.Conv2d(widths[0], widths[0], 4)
        self.linear = nn.Linear(widths[0], settings.classes)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.embed(pixels))
        return logits

    def embed(self, pixels: Tensor) -> Tensor:
        """Films [N, 1, R, R] in [-1, 1] -> what the last layer sees, [N, num_features]."""
        x = self.from_gray(pixels * 0.5 + 0.5 if self.settings.output_range == "unit" else pixels)
        for level in reversed(self.levels):
            x = level(x)
        x = F.pad(x, (0, 0, 0, 0, 0, 1), value=SPREAD_OF_ONE)  # one more plane
        for layer in (self.first, self.second):
            x = F.leaky_relu(layer(x), self.settings.leak)
        return x.flatten(1)


class PgganDiscriminatorEncoder(PgganDiscriminator):
    """Films [N, 1, R, R] in [-1, 1] -> codes [N, 1, classes]: the same network as an embedder (Segal et al. 2021, 4.5)."""

    def __init__(self, settings: PgganDiscriminatorSettings) -> None:
        super().__init__(settings)
        self.code_shape = (1, settings.classes)

    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels).unsqueeze(1)


class _ShrinkingLevel(nn.Module):
    """Half the resolution: two convolutions, each followed by leaky ReLU, then the mean of 2x2 pixels."""

    def __init__(self, below: int, width: int, leak: float) -> None:
        super().__init__()
        self.leak = leak
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, below, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.second):
            x = F.leaky_relu(layer(x), self.leak)
        return F.avg_pool2d(x, 2)
