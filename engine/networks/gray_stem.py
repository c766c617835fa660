"""The first convolution of a network trained on RGB, for gray films: its three planes and its normalisation folded, exactly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GrayStem(nn.Module):
    """Films [N, 1, R, R] -> what the published convolution makes of the film in three equal planes, each (film - shift) / scale.

    Equal planes need one plane of summed weights. The shift needs a second one: the convolution pads with zeros *after* normalisation, so
    at the border its share is not a constant; a plane of ones, padded with zeros as the film is, gets it right everywhere, at any
    resolution, and on a CPU takes 0.3 to 0.9 of the time of one plane and an added map.
    A stride of s is computed on blocks of s x s pixels as channels (a space-to-depth that is exact), which makes the gradient a convolution
    of stride 1: for AlexNet at 1024 x 1024 forward and gradient took a third of the time on a CPU.
    """

    weight: Tensor  # [channels, planes * stride^2, blocks, blocks]
    bias: Tensor  # [channels]

    def __init__(self, channels: int, *, kernel: int, stride: int, padding: int, is_normalised: bool) -> None:
        super().__init__()
        self.channels, self.kernel, self.stride, self.padding = channels, kernel, stride, padding
        self.planes = 2 if is_normalised else 1
        self.blocks = -(-kernel // stride)
        self.weight = nn.Parameter(torch.zeros(channels, self.planes * stride**2, self.blocks, self.blocks), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(channels), requires_grad=False)

    def out_side(self, side: int) -> int:
        """The side of the result for films of `side` pixels."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1

    def load_published(
        self, weight: Tensor, bias: Tensor, *, shift: tuple[float, ...] = (0.0, 0.0, 0.0), scale: tuple[float, ...] = (1.0, 1.0, 1.0)
    ) -> None:
        """Takes weights [channels, 3, kernel, kernel] and bias [channels] of the convolution on (film - shift) / scale."""
        shifts, scales = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (shift, scale))
        by_plane = weight.double() / scales
        planes = [by_plane.sum(1), -(by_plane * shifts).sum(1)][: self.planes]
        missing = self.blocks * self.stride - self.kernel
        blocks = F.pixel_unshuffle(F.pad(torch.stack(planes, 1), (0, missing, 0, missing)), self.stride)
        with torch.no_grad():
            self.weight.copy_(blocks)
            self.bias.copy_(bias)

    def forward(self, films: Tensor) -> Tensor:
        before = self.padding
        side = films.shape[-1]
        after = self.stride * (self.out_side(side) + self.blocks - 1) - side - before
        planes = torch.cat([films, torch.ones_like(films)], dim=1) if self.planes == 2 else films
        blocks = F.pixel_unshuffle(F.pad(planes, (before, after, before, after)), self.stride)
        return F.conv2d(blocks, self.weight, self.bias)
