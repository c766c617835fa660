"""The convolutions of AlexNet and VGG-16 with the five taps that LPIPS compares, on gray films."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks.gray_stem import GrayStem

FeatureNet = Literal["alex", "vgg"]

# ImageNet's mean and deviation by channel, for values in [-1, 1], with the digits that the package `lpips` has
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


@dataclass(frozen=True, kw_only=True)
class Conv:
    """One convolution and the ReLU after it. `index` is its place in torchvision's `features`."""

    index: int
    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    is_pooled_first: bool = False
    is_tap: bool = True

    @property
    def name(self) -> str:
        return f"features.{self.index}"


# Krizhevsky 2014, as torchvision has it: max-pooling of 3 pixels in steps of 2
_ALEX = (
    Conv(index=0, channels=64, kernel=11, stride=4, padding=2),
    Conv(index=3, channels=192, kernel=5, padding=2, is_pooled_first=True),
    Conv(index=6, channels=384, is_pooled_first=True),
    Conv(index=8, channels=256),
    Conv(index=10, channels=256),
)
# Simonyan and Zisserman 2015, configuration D: max-pooling of 2 pixels; the tap is the last convolution before each pooling
_VGG = (
    Conv(index=0, channels=64, is_tap=False),
    Conv(index=2, channels=64),
    Conv(index=5, channels=128, is_pooled_first=True, is_tap=False),
    Conv(index=7, channels=128),
    Conv(index=10, channels=256, is_pooled_first=True, is_tap=False),
    Conv(index=12, channels=256, is_tap=False),
    Conv(index=14, channels=256),
    Conv(index=17, channels=512, is_pooled_first=True, is_tap=False),
    Conv(index=19, channels=512, is_tap=False),
    Conv(index=21, channels=512),
    Conv(index=24, channels=512, is_pooled_first=True, is_tap=False),
    Conv(index=26, channels=512, is_tap=False),
    Conv(index=28, channels=512),
)
LAYERS: dict[FeatureNet, tuple[Conv, ...]] = {"alex": _ALEX, "vgg": _VGG}
POOLS: dict[FeatureNet, int] = {"alex": 3, "vgg": 2}  # pixels a side; the step is 2
LEAST_SIDES: dict[FeatureNet, int] = {"alex": 31, "vgg": 16}  # under these a pooling has nothing left


def tap_channels(net: FeatureNet) -> tuple[int, ...]:
    """Channels of the five taps."""
    return tuple(layer.channels for layer in LAYERS[net] if layer.is_tap)


def published_shapes(net: FeatureNet) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights in torchvision's file; its classifier is not needed."""
    layers = LAYERS[net]
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, inputs in zip(layers, (3, *(layer.channels for layer in layers)), strict=False):
        shapes[f"{layer.name}.weight"] = (layer.channels, inputs, layer.kernel, layer.kernel)
        shapes[f"{layer.name}.bias"] = (layer.channels,)
    return shapes


def multiply_adds(net: FeatureNet, side: int) -> int:
    """Multiply-adds of the forward pass on one gray film of `side` pixels, as it is computed here: two planes go in."""
    total, inputs = 0, 2
    for layer in LAYERS[net]:
        if layer.is_pooled_first:
            side = (side - POOLS[net]) // 2 + 1
        side = (side + 2 * layer.padding - layer.kernel) // layer.stride + 1
        taps = (-(-layer.kernel // layer.stride) * layer.stride) ** 2  # a kernel in whole blocks of the stride
        total += layer.channels * inputs * taps * side**2
        inputs = layer.channels
    return total


class FeatureStack(nn.Module):
    """Films [N, 1, R, R] in [-1, 1] -> the five taps, [N, C, r, r] each, R of LEAST_SIDES or more.

    Equal, up to rounding, to the network of `lpips.LPIPS(net=...)` on the film in three equal planes. Weights are frozen.
    """

    def __init__(self, net: FeatureNet) -> None:
        super().__init__()
        self.net, self.pool = net, POOLS[net]
        layers = LAYERS[net]
        first = layers[0]
        self.stem = GrayStem(first.channels, kernel=first.kernel, stride=first.stride, padding=first.padding, is_normalised=True)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before.channels, layer.channels, layer.kernel, layer.stride, layer.padding) for before, layer in pairwise(layers)
        )
        self.requires_grad_(False).eval()

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Takes torchvision's weights under torchvision's names, of `published_shapes`; others are ignored."""
        first, *rest = LAYERS[self.net]
        self.stem.load_published(state[f"{first.name}.weight"], state[f"{first.name}.bias"], shift=_SHIFT, scale=_SCALE)
        with torch.no_grad():
            for layer, convolution in zip(rest, self.convolutions, strict=True):
                convolution.weight.copy_(state[f"{layer.name}.weight"])  # type: ignore[operator]
                convolution.bias.copy_(state[f"{layer.name}.bias"])  # type: ignore[operator]
        self.to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        first, *rest = LAYERS[self.net]
        x = F.relu(self.stem(pixels))
        taps = [x] if first.is_tap else []
        for layer, convolution in zip(rest, self.convolutions, strict=True):
            if layer.is_pooled_first:
                x = F.max_pool2d(x, self.pool, 2)
            x = F.relu(convolution(x))
            if layer.is_tap:
                taps.append(x)
        return tuple(taps)
