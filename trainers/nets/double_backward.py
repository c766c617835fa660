"""Convolution and leaky ReLU whose gradients are themselves differentiable at the price of a convolution: what a gradient penalty needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.networks.frozen_ops import turned

# Torch computes a convolution's second gradient as one with kernels as large as the film; here it is one of the sizes of the first.
# Whether gradients in weights are made is a setting of this process, since a Python function is not told which of them are asked for.
_skips_weights = [False]


@contextmanager
def without_weight_gradients() -> Iterator[None]:
    """Within it `conv` passes gradients to its input alone: for `torch.autograd.grad(..., create_graph=True)` in films."""
    before = _skips_weights[0]
    _skips_weights[0] = True
    try:
        yield
    finally:
        _skips_weights[0] = before


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, *, padding: int) -> Tensor:
    """x [N, C, H, W], weight [D, C, k, k], bias [D] or None -> [N, D, H + 2 padding - k + 1, ...], stride 1. Under autocast in its type.

    Twice differentiable in x, and the gradient in x in weight; the gradient in weight only once.
    """
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):  # there is none on the meta device
        dtype = torch.get_autocast_dtype(kind)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    y: Tensor = _Conv.apply(x, weight, bias, padding)
    return y


def leaky_relu_(x: Tensor, slope: float) -> Tensor:
    """Leaky ReLU of any shape in place, 0 <= slope < 1: of a result that nothing else needs, such as that of `conv`.

    Its second gradient in x is zero and is not made; its output tells which side x was on.
    """
    y: Tensor = _Leaky.apply(x, slope)
    return y


class _Conv(torch.autograd.Function):
    """Stride 1, so that the gradient in x is a convolution of the same kind, with the weights turned."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(x, weight, bias, padding=padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        if _skips_weights[0]:
            needs_weight = needs_bias = False
        grad_x = _Conv.apply(grad, turned(weight), None, weight.shape[-1] - 1 - ctx.padding) if needs_x else None
        grad_weight = _WeightGradient.apply(grad, x, weight, ctx.padding) if needs_weight else None
        grad_bias = grad.sum(dim=(0, 2, 3)) if needs_bias else None
        return grad_x, grad_weight, grad_bias, None


class _WeightGradient(torch.autograd.Function):
    """The gradient in a convolution's weights; nothing ever asks for its own gradient."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, padding: int) -> Tensor:
        pad, one = [padding, padding], [1, 1]
        found: Tensor = torch.ops.aten.convolution_backward(grad, x, weight, None, one, pad, one, False, [0, 0], 1, [False, True, False])[1]
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None, None]:
        raise NotImplementedError("the gradient in a convolution's weights has no gradient of its own here")


class _Leaky(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        F.leaky_relu_(x, slope)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        ctx.slope = slope
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return _LeakyGradient.apply(grads[0], y.detach(), ctx.slope), None


class _LeakyGradient(torch.autograd.Function):
    """Linear in the gradient, and constant in y but where y is 0."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, y: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(y)
        ctx.slope = slope
        return _times_slope(grad, y, slope)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        return _times_slope(grads[0], y, ctx.slope), None, None


def _times_slope(grad: Tensor, y: Tensor, slope: float) -> Tensor:
    found: Tensor = torch.ops.aten.leaky_relu_backward(grad, y, slope, True)
    return found
