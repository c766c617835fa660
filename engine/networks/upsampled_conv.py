"""Nearest-neighbour upsampling and the convolution after it as one convolution of the small map: the same result for less work."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UpsampledConv(nn.Conv2d):
    """x [N, C, h, w] -> conv(nearest x2 of x) [N, out, 2h, 2w], an odd `kernel_size` with zeros beyond the edge.

    Pixels of equal parity see the same small pixels with sums of the same weights, so four small kernels do the work of the large one: 9
    products an output pixel in place of 25 for 5x5, 25 in place of 49 for 7x7. Weights are those of the plain convolution, and films
    equal up to rounding.
    """

    def __init__(self, channels: int, out: int, kernel_size: int) -> None:
        super().__init__(channels, out, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        small = torch.stack([_folded(self.weight, row, column) for row in range(2) for column in range(2)], dim=1)  # [out, 4, C, a, a]
        bias = None if self.bias is None else self.bias.repeat_interleave(4)
        parities = F.conv2d(x, small.flatten(0, 1), bias, padding=small.shape[-1] // 2)  # [N, out * 4, h, w]
        return F.pixel_shuffle(parities, 2)


def _folded(weight: Tensor, row: int, column: int) -> Tensor:
    """The small kernel [out, C, a, a] for outputs whose row and column have these parities: taps that fall on one small pixel are added."""
    size = weight.shape[-1]
    reach = size // 2
    most = (reach + 1) // 2  # small pixels to either side
    before = [2 * most - reach + parity for parity in (row, column)]
    after = [2 * (2 * most + 1) - size - count for count in before]
    padded = F.pad(weight, (before[1], after[1], before[0], after[0]))
    small = 2 * most + 1
    return padded.reshape(*weight.shape[:2], small, 2, small, 2).sum((3, 5))
