"""StyleGAN's mapping network, z -> w (Karras et al. 2019, section 2), and layers with equalised learning rate as that paper scales them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks.pixel_norm import pixel_norm
from engine.networks.stylegan_mapping import MappingSettings
from trainers.nets.equalised import Equalised, in_float32

__all__ = ["GAIN", "MappingNetwork", "MappingSettings", "ScaledLinear"]

GAIN = math.sqrt(2)  # He's, for layers before a leaky ReLU


class ScaledLinear(Equalised):
    """x [N, in] -> [N, out]: the weight times `multiplier` * `gain` / sqrt(in), the bias times `multiplier`.

    Weights start as N(0, 1 / multiplier^2), so the layer starts as one without a multiplier and then moves `multiplier` times as fast.
    """

    def __init__(self, size_in: int, size_out: int, *, gain: float = GAIN, multiplier: float = 1.0) -> None:
        super().__init__(size_out, size_in)
        self.multiplier = multiplier
        self.weight.data /= multiplier
        self.scale = gain / math.sqrt(size_in) * multiplier

    def scaled(self) -> tuple[Tensor, Tensor]:
        return self.weight * self.scale, self.bias * self.multiplier

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.scaled())


class MappingNetwork(nn.Module):
    """z [N, code_size], of any length, which has no effect -> w [N, code_size] float32; in float32 whatever autocast says.

    `mean`: the mean of w, which `find_mean` sets; in a network that is being trained it is 0.
    """

    def __init__(self, settings: MappingSettings) -> None:
        super().__init__()
        self.settings = settings
        size = settings.code_size
        self.linears = nn.ModuleList(ScaledLinear(size, size, multiplier=settings.multiplier) for _ in range(settings.layers))
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(size))

    def forward(self, z: Tensor) -> Tensor:
        with in_float32(z):
            x = pixel_norm(z)
            for linear in self.linears:
                x = F.leaky_relu(linear(x), self.settings.leak)
        return x

    def truncated(self, z: Tensor, psi: float) -> Tensor:
        """w drawn towards the mean: mean + psi * (w - mean) (Karras et al. 2019, appendix B). psi 1 changes nothing, 0 leaves the mean."""
        w: Tensor = torch.lerp(self.mean, self(z), psi)
        return w

    @torch.no_grad()
    def find_mean(self, z: Tensor) -> Tensor:
        """Sets and returns `mean` [code_size]: the mean w of many z [M, code_size], added up in float64."""
        total = torch.stack([self(part).double().sum(dim=0) for part in torch.split(z, 1024)]).sum(dim=0)
        self.mean.copy_(total / len(z))
        return self.mean
