"""The discriminator of a deep convolutional GAN (Radford et al. 2016), and the random weights from which both networks start."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.config import check_at_least, check_choice
from engine.errors import ConfigError
from engine.networks.dcgan import KERNELS

HEADS = ("map", "single")


@dataclass(frozen=True, kw_only=True)
class DcganDiscriminatorSettings:
    """Widths from the film down; n of them judge films of 4 * 2^n pixels a side. The default is Kumar and Triana 2024, figure 7 (left).

    `head`: the last layer on the 4x4 maps. "map" is Kumar's classifier, a 4x4 convolution with stride 2 and padding 1, which gives 2x2
    scores a film; "single" is Radford's, one score from all 16 places. `kernel`: of the layers before it.
    """

    channels: tuple[int, ...] = (32, 64, 128, 256, 512)
    kernel: int = 4
    head: str = "map"
    leak: float = 0.2

    def __post_init__(self) -> None:
        check_at_least("discriminator levels", len(self.channels), 1)
        for width in self.channels:
            check_at_least("discriminator channels", width, 1)
        if self.kernel not in KERNELS:
            raise ConfigError(f"kernel must be one of 4, 5: {self.kernel}")
        check_choice("head", self.head, HEADS)
        if not 0 <= self.leak < 1:
            raise ConfigError(f"leak must be 0 or more and under 1: {self.leak}")


class DcganDiscriminator(nn.Module):
    """Films [N, 1, R, R] in [-1, 1] -> scores [N, places] float32, places 4 for the head "map" and 1 for "single".

    Convolutions of stride 2 with leaky ReLU; all but the first and the head have a batch norm, none has a bias. The published count of
    2,795,904 parameters is that of these layers, so the head has no bias either. In training mode a score depends on the whole batch.
    """

    def __init__(self, settings: DcganDiscriminatorSettings) -> None:
        super().__init__()
        self.settings = settings
        widths, kernel = settings.channels, settings.kernel
        self.resolution = 4 * 2 ** len(widths)
        self.first = _halving(1, widths[0], kernel)
        self.levels = nn.ModuleList(_halving(above, width, kernel) for above, width in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.head = _halving(widths[-1], 1, 4) if settings.head == "map" else nn.Conv2d(widths[-1], 1, 4, bias=False)

    def forward(self, films: Tensor) -> Tensor:
        leak = self.settings.leak
        x = F.leaky_relu(self.first(films), leak)
        for level, norm in zip(self.levels, self.norms, strict=True):
            x = F.leaky_relu(norm(level(x)), leak)
        scores: Tensor = self.head(x)
        return scores.flatten(1).float()


@torch.no_grad()
def start_weights(network: nn.Module, *, spread: float = 0.02) -> None:
    """Weights ~ N(0, spread^2) as in Radford et al. 2016, section 4; gains of batch norms ~ N(1, spread^2), their biases 0.

    Drawn from torch's own generator. The paper speaks of weights alone; gains of the same spread around 1 are how it is commonly read.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight.normal_(0.0, spread)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.normal_(1.0, spread)
            module.bias.zero_()


def _halving(above: int, width: int, kernel: int) -> nn.Conv2d:
    """A convolution of stride 2 to exactly half the side."""
    return nn.Conv2d(above, width, kernel, stride=2, padding=(kernel - 1) // 2, bias=False)
