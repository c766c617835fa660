"""DenseNet (Huang et al. 2017): torchvision's network on gray films, whose last layer gives one logit a label (Segal et al. 2021, 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.densenet import DenseNet

from engine.errors import CodecError

_LAST = "classifier"
_IMAGENET_MEAN, _IMAGENET_SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LEAST_SIDE = 16


@dataclass(frozen=True, kw_only=True)
class DenseNetSettings:
    """Layers of each dense block and what a layer adds; the defaults are DenseNet-121.

    `stem`: channels of the first convolution. `bottleneck`: a layer's inner width, in units of `growth`. `in_channels` 3 repeats the gray
    film and takes off ImageNet's mean and spread, for weights trained there; with 1 the network sees films in [-1, 1].
    """

    blocks: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32
    stem: int = 64
    bottleneck: int = 4
    dropout: float = 0.0  # while training
    in_channels: int = 1
    classes: int = 15

    def __post_init__(self) -> None:
        if not 1 <= len(self.blocks) <= 6 or not all(1 <= layers <= 100 for layers in self.blocks):
            raise CodecError(f"densenet.blocks must be 1 to 6 numbers of 1 to 100 layers: {self.blocks}")
        for name, most in (("growth", 512), ("stem", 2048), ("bottleneck", 32), ("classes", 1000)):
            if not 1 <= getattr(self, name) <= most:
                raise CodecError(f"densenet.{name} must be 1 to {most}: {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise CodecError(f"densenet.dropout must be 0 or more and under 1: {self.dropout}")
        if self.in_channels not in (1, 3):
            raise CodecError(f"densenet.in_channels must be 1 or 3: {self.in_channels}")


class DenseNetClassifier(DenseNet):  # type: ignore[misc]  # torchvision has no types
    """Films [N, 1, R, R] in [-1, 1] -> logits [N, classes], any R from 16 on that leaves each block a pixel. Weights have torchvision's
    names. It has batch norm: while it trains, a film's logits depend on those beside it.
    """

    def __init__(self, settings: DenseNetSettings) -> None:
        super().__init__(
            growth_rate=settings.growth,
            block_config=settings.blocks,
            num_init_features=settings.stem,
            bn_size=settings.bottleneck,
            drop_rate=settings.dropout,
            num_classes=settings.classes,
        )
        self.settings = settings
        self.num_classes = settings.classes
        self.num_features = int(self.classifier.in_features)
        self.resolution: int | None = None  # pooled at the end, so any
        self.least_side = max(_LEAST_SIDE, 2 ** (len(settings.blocks) + 1))
        if settings.in_channels == 1:
            stem = nn.Conv2d(1, settings.stem, kernel_size=7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(stem.weight)  # as torchvision starts the layer it replaces
            self.features.conv0 = stem

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.embed(pixels))
        return logits

    def embed(self, pixels: Tensor) -> Tensor:
        """Films [N, 1, R, R] in [-1, 1] -> the mean of the last maps [N, num_features]. Raises CodecError for films that are too small."""
        if min(pixels.shape[-2:]) < self.least_side:
            blocks = len(self.settings.blocks)
            raise CodecError(f"densenet of {blocks} blocks takes films of {self.least_side} pixels a side or more: {pixels.shape[-1]}")
        maps = F.relu(self.features(self._planes(pixels)))
        return maps.mean(dim=(2, 3))

    def _planes(self, pixels: Tensor) -> Tensor:
        if self.settings.in_channels == 1:
            return pixels
        mean, spread = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (_IMAGENET_MEAN, _IMAGENET_SPREAD))
        return ((pixels + 1) / 2 - mean) / spread


def published_shapes(network: DenseNetClassifier) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights that a published file must have: all but those of the last layer, which is replaced."""
    state = {name: value for name, value in network.state_dict().items() if not name.startswith(_LAST)}
    return {name: tuple(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")}
