"""StyleGAN's mapping network, z -> w (Karras et al. 2019, section 2), with plain weights: it draws a codec's codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import CodecError
from engine.networks.pixel_norm import pixel_norm


@dataclass(frozen=True, kw_only=True)
class MappingSettings:
    """`code_size`: entries of z and of w. `multiplier`: of the learning rate of these layers while they are trained, against all others."""

    code_size: int = 512
    layers: int = 8
    multiplier: float = 0.01
    leak: float = 0.2

    def __post_init__(self) -> None:
        if not 1 <= self.code_size <= 8192 or not 1 <= self.layers <= 64:
            raise CodecError(f"mapping needs 1 to 64 layers of 1 to 8192 entries: {self.layers}, {self.code_size}")
        if not 0 < self.multiplier <= 1 or not 0 <= self.leak < 1:
            raise CodecError(f"mapping.multiplier must be above 0 and 1 at most, leak under 1: {self.multiplier}, {self.leak}")

    @property
    def scales(self) -> tuple[float, float]:
        """What an equalised layer multiplies its weight and its bias by: multiplier * sqrt(2 / entries), and multiplier."""
        return self.multiplier * (2 / self.code_size) ** 0.5, self.multiplier


class MappingNetwork(nn.Module):
    """z [N, code_size], of any length, which has no effect -> w [N, code_size]. `mean` [code_size]: the mean of w over many z."""

    def __init__(self, settings: MappingSettings) -> None:
        super().__init__()
        self.settings = settings
        size = settings.code_size
        self.linears = nn.ModuleList(nn.Linear(size, size) for _ in range(settings.layers))
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(size))

    def forward(self, z: Tensor) -> Tensor:
        x = pixel_norm(z)
        for linear in self.linears:
            x = F.leaky_relu(linear(x), self.settings.leak)
        return x

    @torch.no_grad()
    def fold(self) -> MappingNetwork:
        """Multiplies the constants of equalised layers into weights as a trainer stores them; once. Returns itself."""
        for linear in self.linears:
            assert isinstance(linear, nn.Linear)
            linear.weight.mul_(self.settings.scales[0])
            linear.bias.mul_(self.settings.scales[1])
        return self
