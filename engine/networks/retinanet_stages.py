"""The convolutions below a RetinaNet's heads: torchvision's ResNet-50, or a few plain stages for small films; with their pyramid."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

_GROUPS = 32  # Wu and He 2018
_PER_GROUP = 8  # channels of a group of plain stages, which are too narrow for 32 groups
RESNET_LEVELS = 5  # P3 to P7


def resnet50_pyramid(planes: int, *, norm: str, channels: int) -> BackboneWithFPN:
    """P3 to P7 of ResNet-50 (Lin et al. 2017, section 4): films [N, planes, R, R] -> five maps of `channels`, of strides 8 to 128.

    `norm`: "frozen" for batch norm that never changes, as torchvision has it with ImageNet's weights, or "group". Weights have the
    names of torchvision's `retinanet_resnet50_fpn`.
    """
    body = resnet50(weights=None, norm_layer=FrozenBatchNorm2d if norm == "frozen" else _group_norm)
    if planes != 3:
        body.conv1 = nn.Conv2d(planes, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision starts the layer it replaces
    stages = {"layer2": "0", "layer3": "1", "layer4": "2"}
    return BackboneWithFPN(body, stages, [512, 1024, 2048], channels, extra_blocks=LastLevelP6P7(channels, channels))


class PlainPyramid(nn.Module):
    """Films [N, planes, R, R] -> maps of `channels` for the last `levels` stages. Stage k, of stride 2^k, is a strided convolution and a
    residual block, all 3x3 with group norm; `widths` are multiples of 8. For films of 64, whose opacities are one pixel to ResNet-50.
    """

    def __init__(self, planes: int, widths: tuple[int, ...], *, levels: int, channels: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(_Stage(below, width) for below, width in pairwise((planes, *widths)))
        self.fpn = FeaturePyramidNetwork(list(widths[-levels:]), channels)
        self.out_channels = channels
        self.levels = levels

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        found: OrderedDict[str, Tensor] = self.fpn(OrderedDict((str(k), x) for k, x in enumerate(maps[-self.levels :])))
        return found


class _Stage(nn.Module):
    """Half the side: relu(norm(conv)), then relu(x + norm(conv(relu(norm(conv(x))))))."""

    def __init__(self, below: int, width: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(below, width, 3, stride=2, padding=1, bias=False)
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(plain_norm(width) for _ in range(3))
        for conv in (self.down, self.first, self.second):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norms[0](self.down(x)))
        y = self.norms[2](self.second(F.relu(self.norms[1](self.first(x)))))
        return F.relu(x + y)


def plain_norm(width: int) -> nn.GroupNorm:
    """The norm of plain stages and of the heads upon them; `width` is a multiple of 8."""
    return nn.GroupNorm(width // _PER_GROUP, width)


def _group_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, width)
