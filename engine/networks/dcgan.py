"""The generator of a deep convolutional GAN (Radford et al. 2016), gray, in the widths of Radford or of Kumar and Triana 2024."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import CodecError

KERNELS = (4, 5)
_MOST_LEVELS = 9  # 2048 pixels a side


@dataclass(frozen=True, kw_only=True)
class DcganSettings:
    """Widths. `channels` has one width a level below the film, from 4x4 up; n of them make 4 * 2^n pixels a side.

    The default is the LSGAN of Kumar and Triana 2024, figure 7 (right): 128x128 and 3,606,976 weights. Radford's own generator has
    channels (1024, 512, 256, 128), 64x64, and `kernel` 5. `epsilon` is that of the batch norms, which neither paper gives.
    """

    channels: tuple[int, ...] = (512, 256, 128, 64, 32)
    code_size: int = 100
    kernel: int = 4
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if not 1 <= len(self.channels) <= _MOST_LEVELS:
            raise CodecError(f"dcgan.channels needs 1 to {_MOST_LEVELS} levels: {len(self.channels)}")
        if not all(1 <= width <= 8192 for width in (*self.channels, self.code_size)):
            raise CodecError(f"dcgan widths must be 1 to 8192: {self.code_size}, {self.channels}")
        if self.kernel not in KERNELS:
            raise CodecError(f"dcgan.kernel must be one of 4, 5: {self.kernel}")
        if not 0 < self.epsilon <= 1e-2:
            raise CodecError(f"dcgan.epsilon must be above 0 and at most 0.01: {self.epsilon}")


class DcganGenerator(nn.Module):
    """z [N, 1, code_size] -> films [N, 1, R, R] in (-1, 1), R = 4 * 2^levels. The length of z counts.

    A transposed convolution makes 4x4 of the code, each further one doubles the side; batch norm and ReLU follow all but the last, which
    ends in tanh. No layer has a bias: where a batch norm follows, the norm has one, and the parameter counts of Kumar and Triana's table 5
    allow none for the last layer. In evaluation mode the norms use their running statistics, so films do not look at each other.
    """

    def __init__(self, settings: DcganSettings) -> None:
        super().__init__()
        self.settings = settings
        widths = settings.channels
        self.code_shape = (1, settings.code_size)
        self.resolution = 4 * 2 ** len(widths)
        self.first = nn.ConvTranspose2d(settings.code_size, widths[0], 4, bias=False)
        self.levels = nn.ModuleList(_doubling(below, width, settings.kernel) for below, width in pairwise((*widths, 1)))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, eps=settings.epsilon) for width in widths)

    def forward(self, latents: Tensor) -> Tensor:
        x: Tensor = self.first(latents.flatten(1)[:, :, None, None].to(self.first.weight.dtype))  # [N, C, 4, 4]
        for norm, level in zip(self.norms, self.levels, strict=True):
            x = level(F.relu(norm(x)))
        return torch.tanh(x)  # [N, 1, R, R]


def _doubling(below: int, width: int, kernel: int) -> nn.ConvTranspose2d:
    """A transposed convolution of stride 2 to exactly twice the side."""
    return nn.ConvTranspose2d(below, width, kernel, stride=2, padding=(kernel - 1) // 2, output_padding=kernel % 2, bias=False)
