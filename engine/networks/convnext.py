"""The encoder of Weber et al. 2022: torchvision's ConvNeXt (Liu et al. 2022) with the code as its last layer, on gray films."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from engine.errors import CodecError

_FIRST = "features.0.0.weight"


@dataclass(frozen=True, kw_only=True)
class ConvNextSettings:
    """Blocks and widths of the four stages; the defaults are ConvNeXt-Small, which Weber uses.

    `in_channels` 3 repeats the gray film, for weights trained on RGB; 1 takes weights whose three input planes are summed
    (`sum_input_planes`), which gives the same codes for less work. Films are averaged over squares of `pool` x `pool` pixels first: a code
    of a few hundred numbers holds nothing finer than 256 pixels a side, and a film of 1024 costs 16 times as much as one of 256.
    """

    depths: tuple[int, ...] = (3, 3, 27, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    code_size: int = 512
    in_channels: int = 1
    stochastic_depth: float = 0.4  # while training
    pool: int = 1

    def __post_init__(self) -> None:
        if not 1 <= len(self.depths) == len(self.widths) <= 8:
            raise CodecError(f"convnext needs as many depths as widths, 8 at most: {self.depths}, {self.widths}")
        if not all(1 <= depth <= 100 for depth in self.depths) or sum(self.depths) < 2:
            raise CodecError(f"convnext.depths must be 1 to 100, and 2 or more together: {self.depths}")
        if not all(1 <= width <= 8192 for width in (*self.widths, self.code_size)):
            raise CodecError(f"convnext widths must be 1 to 8192: {self.code_size}, {self.widths}")
        if self.in_channels not in (1, 3):
            raise CodecError(f"convnext.in_channels must be 1 or 3: {self.in_channels}")
        if not 0 <= self.stochastic_depth < 1:
            raise CodecError(f"convnext.stochastic_depth must be 0 or more and under 1: {self.stochastic_depth}")
        if not 1 <= self.pool <= 64:
            raise CodecError(f"convnext.pool must be 1 to 64: {self.pool}")


class ConvNextEncoder(ConvNeXt):  # type: ignore[misc]  # torchvision has no types
    """Films [N, 1, R, R] in [-1, 1] -> codes [N, 1, code_size], any R that is a multiple of `pool` and 32 times it or more.

    Weights have torchvision's names. The network sees [0, 1] without further normalisation, as Weber trained it.
    Raises CodecError for films that squares of `pool` pixels do not tile.
    """

    def __init__(self, settings: ConvNextSettings) -> None:
        widths = settings.widths
        super().__init__(
            [CNBlockConfig(*stage) for stage in zip(widths, (*widths[1:], None), settings.depths, strict=True)],
            stochastic_depth_prob=settings.stochastic_depth,
            num_classes=settings.code_size,
        )
        self.settings = settings
        self.code_shape = (1, settings.code_size)
        self.resolution: int | None = None  # pooled at the end, so any
        if settings.in_channels == 1:
            stem = nn.Conv2d(1, widths[0], kernel_size=4, stride=4)
            nn.init.trunc_normal_(stem.weight, std=0.02)  # as torchvision starts the layer it replaces
            self.features[0][0] = stem

    def forward(self, pixels: Tensor) -> Tensor:
        x = ((self._pooled(pixels) + 1) / 2).to(self.get_parameter(_FIRST).dtype)
        code: Tensor = super().forward(x.expand(-1, self.settings.in_channels, -1, -1))  # [N, code_size]
        return code.unsqueeze(1)

    def _pooled(self, pixels: Tensor) -> Tensor:
        pool, side = self.settings.pool, pixels.shape[-1]
        if pool == 1:
            return pixels
        if side % pool:
            raise CodecError(f"convnext averages squares of {pool} pixels, which do not tile films of pixels a side: {side}")
        return F.avg_pool2d(pixels, pool)


def sum_input_planes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights for three equal input planes as weights for one: the first convolution is linear, so summing over its planes is exact."""
    return {name: value.sum(dim=1, keepdim=True) if name == _FIRST else value for name, value in state.items()}
