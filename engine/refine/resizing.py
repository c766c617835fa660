"""Resizing as whole operators with gradients in forward operators, in place of the gathers and scatters that torch traces."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

aten = torch.ops.aten
Rule = Callable[..., Any]
Size = Sequence[int]


def resize_rules() -> dict[OpOverload, Rule]:
    """The gradients of pools and resizing to a size, for a decomposition table."""
    return {
        aten._adaptive_avg_pool2d_backward.default: _adaptive_average_pool,
        aten.upsample_nearest2d_backward.default: _nearest,
        aten.upsample_bilinear2d_backward.default: _resized(aten.upsample_bilinear2d.default),
        aten.upsample_bicubic2d_backward.default: _resized(aten.upsample_bicubic2d.default),
        aten._upsample_bilinear2d_aa_backward.default: _resized(aten._upsample_bilinear2d_aa.default),
        aten._upsample_bicubic2d_aa_backward.default: _resized(aten._upsample_bicubic2d_aa.default),
    }


def _nearest(gradient: Tensor, output_size: Size, input_size: Size, scale_h: float | None = None, scale_w: float | None = None) -> Tensor:
    """By whole factors a sum over blocks, which is their mean times their size; else as any resizing."""
    factors = [out // size for out, size in zip(output_size, input_size[2:], strict=True)]
    if [size * factor for size, factor in zip(input_size[2:], factors, strict=True)] == list(output_size):
        means: Tensor = aten.avg_pool2d.default(gradient, factors, factors)
        return means * (factors[0] * factors[1])
    resized: Tensor = _resized(aten.upsample_nearest2d.default)(gradient, output_size, input_size, scale_h, scale_w)
    return resized


def _adaptive_average_pool(gradient: Tensor, x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    if tuple(gradient.shape[2:]) == (1, 1):
        return (gradient / (height * width)).expand(*gradient.shape[:2], height, width)
    rows, columns = (
        _matrix(aten._adaptive_avg_pool2d.default, size, out) for size, out in zip(x.shape[2:], gradient.shape[2:], strict=True)
    )
    return _separable(gradient, rows, columns)


def _resized(forward: OpOverload) -> Rule:
    """The rule of a resizing operator: it is linear and separable, so its gradient is two products with constant matrices."""

    def rule(gradient: Tensor, output_size: Size, input_size: Size, *rest: Any) -> Tensor:
        options, scales = rest[: _OPTIONS[forward]], (*rest[_OPTIONS[forward] :], None, None)[:2]
        rows, columns = (
            _matrix(forward, size, out, *options, scale=scale) for size, out, scale in zip(input_size[2:], output_size, scales, strict=True)
        )
        return _separable(gradient, rows, columns)

    return rule


def _separable(gradient: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows^T x gradient x columns for each [h, w] plane."""
    rows, columns = (matrix.to(device=gradient.device, dtype=gradient.dtype) for matrix in (rows, columns))
    return torch.matmul(rows.t(), torch.matmul(gradient, columns))


# Resizing operators by (mode, antialias), and how many arguments each takes between its size and its scales.
_RESIZE = {
    ("nearest", False): aten.upsample_nearest2d.default,
    ("bilinear", False): aten.upsample_bilinear2d.default,
    ("bilinear", True): aten._upsample_bilinear2d_aa.default,
    ("bicubic", False): aten.upsample_bicubic2d.default,
    ("bicubic", True): aten._upsample_bicubic2d_aa.default,
}
_OPTIONS = {forward: 0 if mode == "nearest" else 1 for (mode, _), forward in _RESIZE.items()}


@lru_cache(maxsize=64)
def _matrix(forward: OpOverload, size: int, out: int, *options: Any, scale: float | None = None) -> Tensor:
    """What `forward` does to one axis, as a matrix [out, size]: its answer to every unit vector, held along the other axis."""
    with _disable_current_modes(), torch.no_grad():
        units = torch.eye(size)[:, None, :, None].expand(size, 1, size, size).contiguous()
        if forward is aten._adaptive_avg_pool2d.default:
            answers = forward(units, [out, out])
        else:
            answers = forward(units, [out, out], *options, scale, scale)
        matrix: Tensor = answers[:, 0, :, 0].t().contiguous()
        return matrix


class _Resize(torch.autograd.Function):
    """A resizing operator as it is: when it is traced, torch takes the one it has a Python form for apart into gathers and scatters."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: OpOverload, size: Size, *rest: Any) -> Tensor:
        ctx.forward_operator, ctx.input_size, ctx.size, ctx.rest = forward, x.shape, size, rest
        with torch._C._AutoDispatchBelowAutograd():  # the Python form is registered where gradients are
            resized: Tensor = forward(x, size, *rest)
        return resized

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        rule = _nearest if ctx.forward_operator is aten.upsample_nearest2d.default else _resized(ctx.forward_operator)
        return rule(gradients[0], ctx.size, ctx.input_size, *ctx.rest), None, None, *(None for _ in ctx.rest)


class WholeOperators(TorchFunctionMode):
    """While it is active, `interpolate` of films is one operator, forward and backward, and a pool over everything is the mean it is.

    Torch restrides such a pool where it is channels-last, with an operator that engines of dynamic shape do not have.
    """

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.interpolate:
            func = _interpolate
        elif func is F.adaptive_avg_pool2d:
            func = _adaptive_pool
        return func(*args, **(kwargs or {}))


def _adaptive_pool(x: Tensor, output_size: Any) -> Tensor:
    if output_size in (1, (1, 1), [1, 1]):
        return x.mean(dim=(-1, -2), keepdim=True)
    return F.adaptive_avg_pool2d(x, output_size)


def _interpolate(
    x: Tensor,
    size: int | Size | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    if x.dim() != 4 or (mode, antialias) not in _RESIZE:
        return F.interpolate(x, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
    scales: Sequence[float | None] = (None, None)
    if size is None:
        factors = tuple(scale_factor) if isinstance(scale_factor, Sequence) else (scale_factor or 1.0,) * 2
        size = [math.floor(float(extent * factor)) for extent, factor in zip(x.shape[2:], factors, strict=True)]
        scales = (None, None) if recompute_scale_factor else factors
    sizes = [size, size] if isinstance(size, int) else list(size)
    options = () if mode == "nearest" else (bool(align_corners),)
    resized: Tensor = _Resize.apply(x, _RESIZE[mode, antialias], sizes, *options, *scales)
    return resized
