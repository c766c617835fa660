"""The convolutions of VGG-16 and DenseNet-121 as torchvision has them, for encoders that start from ImageNet's weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import densenet121
from torchvision.models.vgg import cfgs, make_layers

CHANNELS = {"vgg16": 512, "densenet121": 1024}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImagenetFeatures(nn.Module):
    """Gray films [N, 1, R, R] in [0, 1] -> features [N, C, R / 32, R / 32], of 512 (VGG-16) or 1024 (DenseNet-121) channels.

    The film goes in three times, as red, green and blue. `normalise`: ImageNet's mean is taken off each, and it is divided by ImageNet's
    deviation. `net` has torchvision's `features` under torchvision's names.
    """

    def __init__(self, name: str, *, normalise: bool) -> None:
        super().__init__()
        self.name = name
        self.normalise = normalise
        self.net = make_layers(cfgs["D"]) if name == "vgg16" else densenet121(weights=None).features
        for layer in self.net.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, films: Tensor) -> Tensor:
        norms = zip(_MEAN, _STD, strict=True) if self.normalise else ((0.0, 1.0),) * 3
        x = torch.cat([(films - mean) / deviation for mean, deviation in norms], dim=1)
        found: Tensor = self.net(x)
        return F.relu(found)  # after VGG-16's own it changes nothing

    def published_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the weights in torchvision's file; its classifier is not needed."""
        state = self.net.state_dict()
        return {f"features.{name}": tuple(value.shape) for name, value in state.items() if value.is_floating_point()}

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Takes torchvision's weights under the names of `published_shapes`."""
        own = self.net.state_dict()
        named = {name: state[f"features.{name}"] for name, value in own.items() if value.is_floating_point()}
        self.net.load_state_dict(own | named)
