"""ResNet-50 up to its pooled features, as MoCo v2 trains it, on gray films; its batch norms are folded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks.folded_norm import NORM_PARTS, fill_convolution, folded
from engine.networks.gray_stem import GrayStem

NUM_FEATURES = 2048
_STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))  # blocks, width; a block gives four times its width
_EXPANSION = 4
_NORM_EPSILON = 1e-5


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride, as torchvision and MoCo have it), 1x1, and a shortcut. The convolutions have the norms in them."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = _EXPANSION * width
        self.conv1 = nn.Conv2d(inputs, width, 1)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1)
        self.conv3 = nn.Conv2d(width, outputs, 1)
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride) if inputs != outputs or stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet50Trunk(nn.Module):
    """Films [N, 1, R, R] -> features [N, 2048], any R of 32 or more. Values are taken as they are, without ImageNet's statistics.

    Equal, up to rounding, to torchvision's `resnet50` in evaluation without its last layer, on the film in three equal planes. Frozen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = GrayStem(64, kernel=7, stride=2, padding=3, is_normalised=False)
        inputs, stages = 64, []
        for stage, (blocks, width) in enumerate(_STAGES):
            outputs, stride = _EXPANSION * width, 1 if stage == 0 else 2
            stages.append(
                nn.Sequential(*(Bottleneck(outputs if block else inputs, width, 1 if block else stride) for block in range(blocks)))
            )
            inputs = outputs
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.requires_grad_(False).eval()

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Takes torchvision's weights under torchvision's names, of `published_shapes`; others are ignored."""
        self.conv1.load_published(*_folded(state, "conv1"))
        for name, convolution in self._convolutions():
            fill_convolution(convolution, *_folded(state, name))
        self.to(memory_format=torch.channels_last)

    def forward(self, films: Tensor) -> Tensor:
        pooled = F.max_pool2d(F.relu(self.conv1(films)), 3, 2, padding=1)
        x: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(pooled))))
        return x.mean(dim=(2, 3))

    def _convolutions(self) -> Iterator[tuple[str, nn.Conv2d]]:
        """All but the first, by their names in torchvision."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                yield (f"{name}.0" if name.endswith("downsample") else name), module

    def published_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the weights in torchvision's file; its last layer is not needed."""
        shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)}
        shapes |= {f"{name}.weight": tuple(convolution.weight.shape) for name, convolution in self._convolutions()}
        for name, shape in list(shapes.items()):
            norm = _norm_of(name.removesuffix(".weight"))
            shapes |= {f"{norm}.{part}": shape[:1] for part in NORM_PARTS}
        return shapes


def multiply_adds(side: int) -> int:
    """Multiply-adds of the forward pass on one gray film of `side` pixels, as it is computed here."""
    side = (side - 1) // 2 + 1
    total = 64 * 64 * side**2  # one plane in kernels of 8 x 8, whole blocks of the stride
    side, inputs = (side - 1) // 2 + 1, 64
    for stage, (blocks, width) in enumerate(_STAGES):
        outputs = _EXPANSION * width
        for block in range(blocks):
            before = side
            if stage and not block:
                side = (side - 1) // 2 + 1
            total += inputs * width * before**2 + (9 * width * width + width * outputs) * side**2
            total += 0 if block else inputs * outputs * side**2
            inputs = outputs
    return total


def _norm_of(convolution: str) -> str:
    """The name of the batch norm after a convolution of this name."""
    head, _, last = convolution.rpartition(".")
    own = {"0": "1"}.get(last, last.replace("conv", "bn"))
    return f"{head}.{own}" if head else own


def _folded(state: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Weight and bias, float64, of the convolution `name` with the batch norm after it."""
    return folded(state, f"{name}.weight", _norm_of(name), epsilon=_NORM_EPSILON)
