"""Residual blocks and attention of latent diffusion's autoencoder: on whole activations, or strip by strip and in place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks.strips import convolved, margins, normed, strips

EPSILON = 1e-6  # of every group norm


def same(below: int, width: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(below, width, 3, padding=1)


def group_norm(width: int, groups: int) -> nn.GroupNorm:
    """The norm in front of each convolution."""
    return nn.GroupNorm(groups, width, eps=EPSILON)


def convolve(conv: nn.Conv2d, x: Tensor, rows: int, *, upsample: bool = False) -> Tensor:
    """`conv` of `x`, its zeros placed as `strips.margins` says, by strips of `rows` rows or (0) all at once."""
    if rows:
        return convolved(conv, x, rows, upsample=upsample)
    if upsample:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    if conv.stride[0] == 2:
        low, high = margins(conv)
        x = F.pad(x, (low, high, low, high))
    result: Tensor = conv(x)
    return result


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1 convolution on x where the width changes."""

    def __init__(self, below: int, width: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(below, groups), same(below, width)
        self.norm2, self.conv2 = group_norm(width, groups), same(width, width)
        self.shortcut = nn.Conv2d(below, width, 1) if below != width else None

    def forward(self, x: Tensor, rows: int) -> Tensor:
        """[N, below, H, W] -> [N, width, H, W]. With `rows`, what `x` held is overwritten."""
        if not rows:
            h = self.conv1(normed(self.norm1, x, x.shape[2])(x))
            result: Tensor = self.conv2(normed(self.norm2, h, x.shape[2])(h))
            return result + (x if self.shortcut is None else self.shortcut(x))
        h = convolved(self.conv1, x, rows, before=normed(self.norm1, x, rows))
        if self.shortcut is not None:
            x = _in_place(self.shortcut, x, rows)
        return convolved(self.conv2, h, rows, before=normed(self.norm2, h, rows), onto=x)


class Attention(nn.Module):
    """x + attention of one head among the pixels of the normed x, softmax(q k' / sqrt(C)) v (Rombach et al. 2022)."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(width, groups)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, rows: int) -> Tensor:
        """[N, C, H, W] both. With `rows`, the queries of that many rows at a time, which has no effect on their answers."""
        n, width, height, across = x.shape
        pixels = self.norm(x.contiguous()).flatten(2).transpose(1, 2)[:, None]  # [N, 1, H W, C]
        key, value = self.key(pixels), self.value(pixels)
        parts = pixels.split(rows * across if rows else height * across, dim=2)
        answers = [self.out(F.scaled_dot_product_attention(self.query(part), key, value)) for part in parts]
        return x + torch.cat(answers, dim=2).reshape(n, height, across, width).permute(0, 3, 1, 2)


class Level(nn.Module):
    """The blocks of one resolution, each with its attention if there is any, and `resample`, the convolution to the next resolution."""

    def __init__(self, below: int, width: int, num_blocks: int, groups: int, *, has_attention: bool, resample: nn.Conv2d | None) -> None:
        super().__init__()
        self.is_upsampled = resample is not None and resample.stride[0] == 1
        self.blocks = nn.ModuleList(ResidualBlock(below if at == 0 else width, width, groups) for at in range(num_blocks))
        self.attentions = nn.ModuleList(Attention(width, groups) for _ in range(num_blocks if has_attention else 0))
        self.resample = resample

    def forward(self, x: Tensor, rows: int) -> Tensor:
        """[N, below, H, W] -> [N, width, H', W']: half the size by a stride of 2, or twice by nearest neighbours before a stride of 1."""
        for at, block in enumerate(self.blocks):
            x = block(x, rows)
            if len(self.attentions):
                x = self.attentions[at](x, rows)
        return x if self.resample is None else convolve(self.resample, x, rows, upsample=self.is_upsampled)


class Middle(nn.Module):
    """The lowest resolution: two blocks, with attention in between where there is any."""

    def __init__(self, width: int, groups: int, *, has_attention: bool) -> None:
        super().__init__()
        self.first, self.second = (ResidualBlock(width, width, groups) for _ in range(2))
        self.attention = Attention(width, groups) if has_attention else None

    def forward(self, x: Tensor, rows: int) -> Tensor:
        """[N, width, H, W] both."""
        x = self.first(x, rows)
        if self.attention is not None:
            x = self.attention(x, rows)
        result: Tensor = self.second(x, rows)
        return result


def _in_place(conv: nn.Conv2d, x: Tensor, rows: int) -> Tensor:
    """A 1x1 convolution of `x`, written over it where it gives fewer channels: what was `x` becomes the first of them."""
    width = conv.out_channels
    if width > x.shape[1]:
        return convolved(conv, x, rows)
    for first, end in strips(x.shape[2], rows):
        x[:, :width, first:end] = conv(x[:, :, first:end])
    return x[:, :width]
