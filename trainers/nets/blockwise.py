"""Leaky ReLU with pixel norm, and the gray layer, in blocks that stay in a processor's cache: what is bound by memory at large films.

Both compute in float32 and keep half precision in memory. On a GPU, and in compiled code, which fuses such work, they are written plainly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.networks import frozen_ops

_BLOCK = 2**16  # values: a quarter of a MiB in float32


def leaky_pixel_norm(x: Tensor, *, leak: float, epsilon: float) -> Tensor:
    """What `engine.networks.frozen_ops.leaky_pixel_norm` gives: [N, C, H, W] -> the same shape and type, once differentiable."""
    if not _pays(x):
        return frozen_ops.leaky_pixel_norm(x, leak=leak, epsilon=epsilon)
    y: Tensor = _LeakyPixelNorm.apply(x, leak, epsilon)
    return y


def gray(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [N, C, H, W], weight [C] and bias [1] float32 -> [N, 1, H, W] in their type: a 1x1 convolution to one channel.

    A convolution would round the film to half precision, in which one to a single channel is slow besides. Once differentiable.
    """
    if not _pays(x) or weight.dtype != torch.float32:
        return (x.to(weight.dtype) * weight.reshape(1, -1, 1, 1)).sum(dim=1, keepdim=True) + bias
    y: Tensor = _Gray.apply(x, weight, bias)
    return y


def _pays(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _rows(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N H W, C], without copying where memory is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _films(rows: Tensor, like: Tensor) -> Tensor:
    n, _, h, w = like.shape
    return rows.view(n, h, w, -1).permute(0, 3, 1, 2)


def _blocks(width: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    size = max(1, _BLOCK // width)
    yield from zip(*(torch.split(tensor, size) for tensor in tensors), strict=True)


class _LeakyPixelNorm(torch.autograd.Function):
    """With s = 1 / rms(a), a = leaky(x) and y = a s: grad_a = s (grad_y - y mean(grad_y y)), and y has the sign of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, leak: float, epsilon: float) -> Tensor:
        rows = _rows(x)
        y, scale = torch.empty_like(rows), torch.empty(len(rows), 1)
        for part, out, each in _blocks(x.shape[1], rows, y, scale):
            active = F.leaky_relu_(part.to(torch.float32, copy=True), leak)
            torch.mean(active.square(), dim=1, keepdim=True, out=each)
            out.copy_(active.mul_(each.add_(epsilon).rsqrt_()))
        y = _films(y, x)
        ctx.save_for_backward(y, scale)
        ctx.leak = leak
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        y, scale = ctx.saved_tensors
        found = torch.empty_like(_rows(y))
        for grad, part, each, out in _blocks(y.shape[1], _rows(grads[0]), _rows(y), scale, found):
            wide, active = grad.to(torch.float32, copy=True), part.float()
            along = (wide * active).mean(dim=1, keepdim=True)
            wide.addcmul_(active, along, value=-1).mul_(each)
            out.copy_(torch.ops.aten.leaky_relu_backward(wide, active, ctx.leak, True))
        return _films(found, y), None, None


class _Gray(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        rows = _rows(x)
        film = torch.empty(len(rows))
        for part, out in _blocks(x.shape[1], rows, film):
            torch.mv(part.float(), weight, out=out)
        return _films(film.add_(bias), x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad = grads[0].float().reshape(-1)  # one channel, so rows and pixels are in one order
        rows = _rows(x)
        found, grad_weight = torch.empty_like(rows), torch.zeros_like(weight)
        for each, part, out in _blocks(x.shape[1], grad, rows, found):
            grad_weight += each @ part.float()
            out.copy_(each[:, None] * weight)
        return _films(found, x), grad_weight, grad.sum().reshape(1)
