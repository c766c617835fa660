"""Layers whose weights will not change, with input gradients that are forward convolutions and need little memory."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None, weight_back: Tensor) -> Tensor:
    """A convolution with zero padding 1: x [N, C, H, W], weight [D, C, 3, 3], bias [D] or None -> [N, D, H, W].

    `weight_back` is `turned(weight)`: with stride 1 the gradient in x is the convolution of the output's gradient with it.
    """
    if not _differentiates(x):
        return F.conv2d(x, weight, bias, padding=1)
    y: Tensor = _Conv3x3.apply(x, weight, bias, weight_back)
    return y


def upsample_conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Nearest-neighbour upsampling by 2, then a 3x3 convolution with zero padding 1: x [N, C, H, W] -> [N, D, 2H, 2W].

    `weight` [C, D, 4, 4] is `folded_upsampling` of the 3x3 weights: one transposed convolution of stride 2, with 16 products for four
    pixels where the two steps need 36 and write the upsampled tensor. The gradient in x is a convolution of stride 2 with the same weight.
    Source: the fused scale of Karras et al. 2018.
    """
    if not _differentiates(x):
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
    y: Tensor = _UpsampleConv3x3.apply(x, weight, bias)
    return y


def leaky_pixel_norm(x: Tensor, *, leak: float, epsilon: float) -> Tensor:
    """Leaky ReLU, then division by the root mean square over channels: [N, C, H, W] -> the same shape and type, computed in float32.

    For the gradient it keeps its output, which the next convolution keeps as well, and one float32 a pixel; `x` can be freed.
    """
    if not _differentiates(x):
        return _leaky_pixel_norm(x, leak, epsilon)[0]
    y: Tensor = _LeakyPixelNorm.apply(x, leak, epsilon)
    return y


def turned(weight: Tensor) -> Tensor:
    """Weights [D, C, 3, 3] -> [C, D, 3, 3], turned by 180 degrees: those of the input gradient of `conv3x3`."""
    return weight.flip(2, 3).transpose(0, 1)


def folded_upsampling(weight: Tensor) -> Tensor:
    """Weights [D, C, 3, 3] -> [C, D, 4, 4] for `upsample_conv3x3`; sums are made in float64.

    An output pixel sees its 3x3 neighbours through at most 2x2 pixels of the input, so taps that meet the same one are added up.
    """
    wide = weight.double().flip(2, 3)
    shifted = [F.pad(wide, (left, 1 - left, top, 1 - top)) for left in (0, 1) for top in (0, 1)]
    return torch.stack(shifted).sum(0).transpose(0, 1).to(weight.dtype)


def _differentiates(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad


def _leaky_pixel_norm(x: Tensor, leak: float, epsilon: float) -> tuple[Tensor, Tensor]:
    active = F.leaky_relu(x.float(), leak)
    scale = torch.rsqrt(active.square().mean(dim=1, keepdim=True) + epsilon)  # [N, 1, H, W]
    return (active * scale).to(x.dtype), scale


class _Conv3x3(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, weight_back: Tensor) -> Tensor:
        ctx.save_for_backward(weight_back)
        return F.conv2d(x, weight, bias, padding=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (weight_back,) = ctx.saved_tensors
        return F.conv2d(grads[0], weight_back, padding=1), None, None, None


class _UpsampleConv3x3(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return F.conv2d(grads[0], weight, stride=2, padding=1), None, None


class _LeakyPixelNorm(torch.autograd.Function):
    """With s = 1 / rms(a), a = leaky(x) and y = a s: grad_a = s (grad_y - y mean(grad_y y)), and y has the sign of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, leak: float, epsilon: float) -> Tensor:
        y, scale = _leaky_pixel_norm(x, leak, epsilon)
        ctx.save_for_backward(y, scale)
        ctx.leak = leak
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        y, scale = ctx.saved_tensors
        grad_y, wide = grads[0].float(), y.float()
        along = (grad_y * wide).mean(dim=1, keepdim=True)
        grad_active = scale * (grad_y - wide * along)
        return torch.where(y > 0, grad_active, grad_active * ctx.leak).to(y.dtype), None, None
