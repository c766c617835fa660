"""Layers with equalised learning rate (Karras et al. 2018, section 4.1): weights of spread 1, scaled by He's constant at every call."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Equalised(nn.Module):
    """A weight [out, ...] ~ N(0, 1) and a bias [out] of 0, both multiplied by `scale` = sqrt(2 / fan_in) where they are used.

    All layers have the same gain, and the bias is scaled as well: Segal et al. 2021; Karras scales neither biases nor the colour layers so.
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(*shape))
        self.bias = nn.Parameter(torch.zeros(shape[0]))
        self.scale = math.sqrt(2 / math.prod(shape[1:]))

    def scaled(self) -> tuple[Tensor, Tensor]:
        """Weight and bias as a plain layer has them."""
        return self.weight * self.scale, self.bias * self.scale


class EqualLinear(Equalised):
    """x [N, in] -> [N, out]."""

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__(size_out, size_in)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.scaled())


class EqualConv(Equalised):
    """A square kernel of `side` pixels: x [N, in, H, W] -> [N, out, H, W], with zeros around where `side` is odd."""

    def __init__(self, width_in: int, width_out: int, side: int) -> None:
        super().__init__(width_out, width_in, side, side)
        self.padding = side // 2 if side % 2 else 0

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.scaled(), padding=self.padding)


def in_float32(x: Tensor) -> AbstractContextManager[object]:
    """No autocast on the device of `x`; the meta device, on which costs are counted, has none."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def equalised_parts(network: nn.Module) -> dict[str, Equalised]:
    """The equalised layers of a network by name."""
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, Equalised)}
