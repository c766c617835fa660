"""The encoder of the cyclic reverse generator (Saboo et al. 2020): two ResNet-101 branches, one of which modulates the other's features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import CodecError

_EXPANSION = 4  # a block gives four times its width
_STEMS = (1, 2, 4)


@dataclass(frozen=True, kw_only=True)
class CrgSettings:
    """Blocks and widths of the stages of each branch; the defaults are ResNet-101 (He et al. 2016).

    `stem`: by how much a film is reduced before the first stage; 4 is ResNet's 7x7 convolution with max pooling, 2 and 1 a 3x3 convolution
    for small films. `hidden`: channels of the convolution from which scale and shift are predicted, 128 in Park et al. 2019.
    `grid`: the merged features are averaged to grid x grid cells before the last layer; 1 is ResNet's mean over all pixels.
    `code_size`: entries of w; `layers`: 1 for w, the generator's style layers for w+.
    """

    blocks: tuple[int, ...] = (3, 4, 23, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: int = 4
    hidden: int = 128
    grid: int = 1
    code_size: int = 512
    layers: int = 1

    def __post_init__(self) -> None:
        if not 1 <= len(self.blocks) == len(self.widths) <= 6:
            raise CodecError(f"crg needs as many blocks as widths, 6 at most: {self.blocks}, {self.widths}")
        if not all(1 <= count <= 100 for count in self.blocks):
            raise CodecError(f"crg.blocks must be 1 to 100 in each stage: {self.blocks}")
        if not all(1 <= width <= 8192 for width in (*self.widths, self.hidden, self.code_size)):
            raise CodecError(f"crg widths must be 1 to 8192: {self.widths}, {self.hidden}, {self.code_size}")
        if self.stem not in _STEMS:
            raise CodecError(f"crg.stem must be one of {', '.join(map(str, _STEMS))}: {self.stem}")
        if not 1 <= self.grid <= 16:
            raise CodecError(f"crg.grid must be 1 to 16: {self.grid}")
        if not 1 <= self.layers <= 64:
            raise CodecError(f"crg.layers must be 1 to 64: {self.layers}")


class CrgEncoder(nn.Module):
    """Films [N, 1, R, R] in [-1, 1], any R -> codes [N, layers, code_size]: w, or w+ with a w for each style layer.

    Saboo says: a two-branch architecture on ResNet-101, after Guan et al. 2020, whose branches are merged by the denormalisation of Park
    et al. 2019. Left open are what the branches share, where they merge, and the last layer. Here they share nothing, as Guan's encoders
    of identity and attributes do; they merge once, after the last stage, where the features of the first are normalised and get scale and
    shift from those of the second; one linear layer makes the code. Both start from random weights; Guan's pretrained encoder is of faces.
    Norms are batch norms, so while it trains a film's code depends on its batch.
    """

    def __init__(self, settings: CrgSettings) -> None:
        super().__init__()
        self.settings = settings
        self.code_shape = (settings.layers, settings.code_size)
        self.resolution: int | None = None  # averaged to the grid at the end, so any
        self.first, self.second = ResNetBranch(settings), ResNetBranch(settings)
        width = _EXPANSION * settings.widths[-1]
        self.merge = SpatialDenorm(width, width, settings.hidden)
        self.head = nn.Linear(width * settings.grid**2, settings.layers * settings.code_size)

    def forward(self, pixels: Tensor) -> Tensor:
        codes, _ = self.coded(pixels)
        return codes

    def features(self, pixels: Tensor) -> list[Tensor]:
        """The hidden feature maps [N, C, r, r] of a film: E_i of the content loss.

        Of the first branch after its stem and after each stage, then of the second, then the merged ones. Saboo does not say which layers
        count as hidden.
        """
        first, second = list(self.first.stages_of(pixels)), list(self.second.stages_of(pixels))
        return [*first, *second, F.relu(self.merge(first[-1], second[-1]))]

    def coded(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Codes and `features` of films in one pass."""
        features = self.features(pixels)
        cells = F.adaptive_avg_pool2d(features[-1], self.settings.grid)
        codes: Tensor = self.head(cells.flatten(1))
        return codes.reshape(-1, *self.code_shape), features

    @torch.no_grad()
    def start_at(self, mean: Tensor) -> None:
        """Makes a fresh encoder's codes lie around `mean` [layers, code_size], a tenth as far apart as they would."""
        self.head.weight.mul_(0.1)
        self.head.bias.copy_(mean.flatten())


class ResNetBranch(nn.Module):
    """A ResNet (He et al. 2016) of bottleneck blocks on one gray plane, without its last layer. The 3x3 convolution has the stride."""

    def __init__(self, settings: CrgSettings) -> None:
        super().__init__()
        width, self.pools = settings.widths[0], settings.stem == 4
        size, stride = (7, 2) if self.pools else (3, settings.stem)
        self.stem = nn.Sequential(nn.Conv2d(1, width, size, stride, size // 2, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        inputs, stages = width, []
        for at, (blocks, width) in enumerate(zip(settings.blocks, settings.widths, strict=True)):
            outputs, stride = _EXPANSION * width, 1 if at == 0 else 2
            stages.append(
                nn.Sequential(*(Bottleneck(outputs if block else inputs, width, 1 if block else stride) for block in range(blocks)))
            )
            inputs = outputs
        self.stages = nn.ModuleList(stages)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def stages_of(self, pixels: Tensor) -> Iterator[Tensor]:
        """Feature maps after the stem and after each stage."""
        x = self.stem(pixels.to(self.get_parameter("stem.0.weight").dtype))
        if self.pools:
            x = F.max_pool2d(x, 3, 2, padding=1)
        yield x
        for stage in self.stages:
            x = stage(x)
            yield x


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each with batch norm, and a shortcut, which is a convolution where shapes differ."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = _EXPANSION * width
        self.residual = nn.Sequential(
            *_normed(inputs, width, 1),
            nn.ReLU(),
            *_normed(width, width, 3, stride),
            nn.ReLU(),
            *_normed(width, outputs, 1),
        )
        self.shortcut = nn.Sequential(*_normed(inputs, outputs, 1, stride)) if inputs != outputs or stride != 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x))


def _normed(inputs: int, outputs: int, size: int, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)


class SpatialDenorm(nn.Module):
    """Spatially-adaptive denormalisation (Park et al. 2019, equation 1), with feature maps in the place of a segmentation map.

    (1 + scale) * (x - mean) / sigma + shift. Mean and sigma are of each channel over the batch, and running ones when it is judged; scale
    and shift have a value for each channel and place, and are predicted from the other maps by two layers of convolutions. The 1 is that
    of Park's published code, and makes a fresh layer one that only normalises, up to what random weights add.
    """

    def __init__(self, width: int, other: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.shared = nn.Conv2d(other, hidden, 3, padding=1)
        self.scale = nn.Conv2d(hidden, width, 3, padding=1)
        self.shift = nn.Conv2d(hidden, width, 3, padding=1)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """x [N, width, r, r] and other [N, other, r, r] -> [N, width, r, r]."""
        hidden = F.relu(self.shared(other))
        changed: Tensor = self.norm(x) * (1 + self.scale(hidden)) + self.shift(hidden)
        return changed
