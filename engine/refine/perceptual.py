"""The terms of the loss that look through a network: LPIPS and MoCo's features. The targets' part is computed once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.errors import ConfigError
from engine.networks.features import LEAST_SIDES, FeatureStack
from engine.networks.resnet50 import ResNet50Trunk
from kernels.lpips_head.op import lpips_head, unit_features

MOCO_SIDE = 224  # pixels: what ResNet-50 was trained on


class PerceptualTerm(nn.Module, ABC):
    """A distance in the features of a frozen network, [N] values. Images never mix."""

    num_features: int  # tensors that `features` returns
    least_side: int  # of films, in pixels

    @abstractmethod
    def features(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """What `forward` compares with, of targets [N, 1, r, r] in [-1, 1]; each tensor has one entry an image."""

    @abstractmethod
    def forward(self, pixels: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """Pixels [N, 1, r, r] in [-1, 1] and the features of N targets -> [N] float32, differentiable in `pixels`."""

    @abstractmethod
    def check_side(self, side: int) -> None:
        """Raises ConfigError unless films of `side` pixels, which are no smaller than `least_side`, can be compared."""

    @abstractmethod
    def at(self, side: int) -> PerceptualTerm:
        """The term for a coarser level, films of `side` pixels, with the same network."""


class LpipsTerm(PerceptualTerm):
    """LPIPS (Zhang et al. 2018, the package's version 0.1) of gray films against their targets.

    `heads` are the five vectors of channel weights. `size` is the side that films are averaged down to first, 0 for their own.
    """

    num_features = 5

    def __init__(self, stack: FeatureStack, heads: Sequence[Tensor] | nn.ParameterList, *, size: int = 0) -> None:
        """Raises ConfigError for a `size` at which the network has no taps."""
        super().__init__()
        self.least_side = LEAST_SIDES[stack.net]
        if size and size < self.least_side:
            raise ConfigError(f"lpips-size must be 0 or at least {self.least_side} for {stack.net}: {size}")
        self.stack, self.size = stack, size
        self.heads = heads if isinstance(heads, nn.ParameterList) else nn.ParameterList(heads)
        self.requires_grad_(False)

    def features(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The taps of targets [N, 1, r, r] in [-1, 1], of unit length over channels: five [N, C, h, w]."""
        return tuple(unit_features(tap) for tap in self.stack(self._at_size(pixels)))

    def forward(self, pixels: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """Pixels [N, 1, r, r] in [-1, 1] and the targets' features -> [N] float32, differentiable in `pixels`."""
        taps = self.stack(self._at_size(pixels))
        values = [lpips_head(tap, target, head) for tap, target, head in zip(taps, targets, self.heads, strict=True)]
        return torch.stack(values).sum(0)

    def _at_size(self, pixels: Tensor) -> Tensor:
        if self.size in (0, pixels.shape[-1]):
            return pixels
        factor = pixels.shape[-1] // self.size
        # a mean over axes rather than a pooling: its gradient needs no operator of its own
        return pixels.reshape(-1, 1, self.size, factor, self.size, factor).mean((3, 5))

    def check_side(self, side: int) -> None:
        """Raises ConfigError unless films of `side` pixels average down to `size` in whole pixels."""
        if self.size and side % self.size:
            raise ConfigError(f"lpips-size must divide the {side} pixels of a film's side: {self.size}")

    def at(self, side: int) -> LpipsTerm:
        """The same for films of `side` pixels: at their own resolution where `size` is not smaller."""
        term = self if self.size < side else LpipsTerm(self.stack, self.heads)
        term.check_side(side)
        return term


class MocoTerm(PerceptualTerm):
    """1 - cosine similarity of MoCo v2's features (ResNet-50 before its last layer), as in e4e, ReStyle and Weber et al. 2022.

    Films in [0, 1], without ImageNet's statistics, taken down to 224 x 224 by nearest neighbour. Smaller films would have to be enlarged,
    at the price of 224 x 224: they are refused.
    """

    num_features = 1
    least_side = MOCO_SIDE

    def __init__(self, trunk: ResNet50Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def features(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Unit features [N, 2048] float32 of targets [N, 1, r, r] in [-1, 1]."""
        found = self.trunk(nearest(pixels * 0.5 + 0.5, MOCO_SIDE)).float()
        return (found / found.square().sum(1, keepdim=True).clamp(min=1e-24).sqrt(),)  # what F.normalize does, and its gradient plain

    def forward(self, pixels: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """Pixels [N, 1, r, r] in [-1, 1] and the targets' features -> [N] float32, differentiable in `pixels`."""
        # of unit vectors, half the squared distance is 1 - cosine, without the cancellation where they are close
        return 0.5 * (self.features(pixels)[0] - targets[0]).square().sum(1)

    def check_side(self, side: int) -> None:
        """Nothing beyond `least_side`."""

    def at(self, side: int) -> MocoTerm:
        """The same: it has a resolution of its own."""
        return self


def nearest(films: Tensor, side: int) -> Tensor:
    """Films [N, 1, r, r] -> [N, 1, side, side] as `F.interpolate` by nearest neighbour, as two products with matrices of ones and zeros.

    They are exact (under autocast films are rounded here rather than by the first convolution), and their gradient is two products again,
    which every backend has; a gather's would be a scatter.
    """
    size = films.shape[-1]
    if size == side:
        return films
    chosen = (torch.arange(side, device=films.device, dtype=torch.float32) * (size / side)).floor()
    matrix = (chosen[:, None] == torch.arange(size, device=films.device)[None]).to(films.dtype)
    return matrix @ films @ matrix.t()
