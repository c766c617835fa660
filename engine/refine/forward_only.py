"""Backward operators written with forward ones, for frozen weights, so that a backend that only knows inference can take a gradient.

Every rule computes what autograd's operator computes, in its order of additions where that decides the last bit. What torch itself
decomposes (activations, norms, softmax ...) is taken from there; convolutions, pools and slices are here, resizing in `resizing.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._decomp import decomposition_table
from torch._ops import OpOverload
from torch.utils._python_dispatch import _disable_current_modes

from engine.refine.resizing import resize_rules

aten = torch.ops.aten
Rule = Callable[..., Any]
Size = Sequence[int]


def rules() -> dict[OpOverload, Rule]:
    """A decomposition table for `make_fx`: every backward operator that has a form in forward operators."""
    known = {op: rule for op, rule in decomposition_table.items() if isinstance(op, OpOverload) and is_backward(op)}
    return (
        known
        | resize_rules()
        | {
            aten.convolution_backward.default: _convolution,
            aten.max_pool2d_with_indices_backward.default: _max_pool,
            aten.avg_pool2d_backward.default: _average_pool,
            aten.slice_backward.default: _slice,
            aten.select_backward.default: _select,
        }
    )


def is_backward(target: object) -> bool:
    """Whether an operator of torch's own is a backward one."""
    return isinstance(target, OpOverload) and target.namespace == "aten" and "_backward" in target._schema.name


def _convolution(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Size | None,
    stride: Size,
    padding: Size,
    dilation: Size,
    transposed: bool,
    output_padding: Size,
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, None, None]:
    """The gradient of the input. That of a convolution is a convolution with the weight turned round where the stride is 1, and else a
    transposed one; that of a transposed one is a plain one."""
    if output_mask[1] or output_mask[2]:
        raise ValueError("a gradient graph is for frozen weights; call requires_grad_(False) on generator and objective")
    if not output_mask[0]:
        return None, None, None
    if transposed:
        return aten.convolution.default(gradient, weight, None, stride, padding, dilation, False, [0] * len(stride), groups), None, None
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if all(s == 1 for s in stride) and all(p <= r for p, r in zip(padding, reach, strict=True)):
        rest = [r - p for p, r in zip(padding, reach, strict=True)]
        turned = _turned(weight, groups)
        return aten.convolution.default(gradient, turned, None, stride, rest, dilation, False, [0] * len(stride), groups), None, None
    least = [(g - 1) * s - 2 * p + r + 1 for g, s, p, r in zip(gradient.shape[2:], stride, padding, reach, strict=True)]
    missing = [size - low for size, low in zip(x.shape[2:], least, strict=True)]
    return aten.convolution.default(gradient, weight, None, stride, padding, dilation, True, missing, groups), None, None


def _turned(weight: Tensor, groups: int) -> Tensor:
    """[out, in / groups, *kernel] -> [in, out / groups, *kernel] with its taps in reverse; depends on weights only, so it is folded."""
    out, inner = weight.shape[:2]
    split = weight.reshape(groups, out // groups, inner, *weight.shape[2:]).transpose(1, 2)
    turned = split.reshape(groups * inner, out // groups, *weight.shape[2:]).flip(*range(2, weight.dim()))
    channels_last = weight.dim() == 4 and not weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last)
    return turned.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _max_pool(
    gradient: Tensor, x: Tensor, kernel: Size, stride: Size, padding: Size, dilation: Size, ceil_mode: bool, indices: Tensor
) -> Tensor:
    """Each gradient goes to the first of its window's values that is the largest. `indices`, which say which, have no converter."""
    del indices
    kernel, stride, padding, dilation = _pair(kernel), _pair(stride or kernel), _pair(padding), _pair(dilation)
    largest = aten.max_pool2d_with_indices.default(x, kernel, stride, padding, dilation, ceil_mode)[0]
    rows, columns = gradient.shape[2:]
    below, right = (
        max(0, (n - 1) * s + d * (k - 1) + 1 - p - size)
        for n, s, d, k, p, size in zip((rows, columns), stride, dilation, kernel, padding, x.shape[2:], strict=True)
    )
    padded = (
        aten.constant_pad_nd.default(x, [padding[1], right, padding[0], below], -math.inf) if (*padding, below, right) != (0,) * 4 else x
    )
    zero = aten.scalar_tensor.default(0.0, dtype=gradient.dtype, device=gradient.device)
    shares, left = {}, gradient
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, start = i * dilation[0], j * dilation[1]
            value = padded[
                :, :, top : top + (rows - 1) * stride[0] + 1 : stride[0], start : start + (columns - 1) * stride[1] + 1 : stride[1]
            ]
            here = value == largest
            shares[top, start] = torch.where(here, left, zero)
            left = torch.where(here, zero, left)
    return _gathered(shares, stride, padding, x.shape[2:])


def _average_pool(
    gradient: Tensor,
    x: Tensor,
    kernel: Size,
    stride: Size,
    padding: Size,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    kernel, stride, padding = _pair(kernel), _pair(stride or kernel), _pair(padding)
    counts = [
        [_count(at, k, s, p, size, count_include_pad) for at in range(n)]
        for n, k, s, p, size in zip(gradient.shape[2:], kernel, stride, padding, x.shape[2:], strict=True)
    ]
    if divisor_override is not None:
        share = gradient / divisor_override
    elif all(len(set(along)) == 1 for along in counts):
        share = gradient / (counts[0][0] * counts[1][0])
    else:
        with _disable_current_modes():
            divisor = torch.outer(*(torch.tensor(along, dtype=gradient.dtype, device=gradient.device) for along in counts))
        share = gradient / divisor
    if tuple(kernel) == tuple(stride) and all(n * k == size for n, k, size in zip(gradient.shape[2:], kernel, x.shape[2:], strict=True)):
        upsampled: Tensor = aten.upsample_nearest2d.default(share, x.shape[2:])
        return upsampled
    return _gathered({(i, j): share for i in range(kernel[0]) for j in range(kernel[1])}, stride, padding, x.shape[2:])


def _count(at: int, kernel: int, stride: int, padding: int, size: int, with_padding: bool) -> int:
    """How many values of one axis the window `at` is divided by."""
    start = at * stride - padding
    end = min(start + kernel, size + padding)
    return end - start if with_padding else min(end, size) - max(start, 0)


def _gathered(shares: dict[tuple[int, int], Tensor], stride: Size, padding: Size, size: Size) -> Tensor:
    """The adjoint of taking windows: `shares` [N, C, h, w] by the offset of their tap -> [N, C, *size], each value the sum of its shares.

    Values of one remainder by the stride are summed at the size of the windows and interleaved at the end. Taps go from last to first,
    so that a value's shares are added from its first window to its last, as autograd does.
    """
    h, w = next(iter(shares.values())).shape[2:]
    (sh, sw), (ph, pw) = stride, padding
    last = max(i for i, _ in shares), max(j for _, j in shares)
    rows = -(-max((h - 1) * sh + last[0] + 1, ph + size[0]) // sh)
    columns = -(-max((w - 1) * sw + last[1] + 1, pw + size[1]) // sw)
    sums: dict[tuple[int, int], Tensor] = {}
    for (i, j), share in sorted(shares.items(), reverse=True):
        down, along, remainder = i // sh, j // sw, (i % sh, j % sw)
        placed = aten.constant_pad_nd.default(share, [along, columns - w - along, down, rows - h - down], 0.0)
        sums[remainder] = sums[remainder] + placed if remainder in sums else placed
    nothing = torch.zeros_like(next(iter(sums.values())))
    parts = [sums.get((a, b), nothing) for a in range(sh) for b in range(sw)]
    whole = parts[0]
    if len(parts) > 1:
        n, c = whole.shape[:2]
        stacked = torch.stack(parts, dim=-1).reshape(n, c, rows, columns, sh, sw)
        whole = stacked.permute(0, 1, 2, 4, 3, 5).reshape(n, c, rows * sh, columns * sw)
    return whole[:, :, ph : ph + size[0], pw : pw + size[1]]


def _slice(gradient: Tensor, input_size: Size, dim: int, start: int, end: int, step: int) -> Tensor:
    """Zeros around; a step puts zeros between, which is an axis of its own until the end."""
    dim = dim % gradient.dim()
    size, length = input_size[dim], gradient.shape[dim]
    start = min(max(start + size if start < 0 else start, 0), size)
    if step > 1:
        spaced = _padded(gradient.unsqueeze(dim + 1), dim + 1, 0, step - 1)
        gradient = spaced.reshape(*gradient.shape[:dim], length * step, *gradient.shape[dim + 1 :])
        gradient = gradient.narrow(dim, 0, (length - 1) * step + 1) if length else gradient
    return _padded(gradient, dim, start, size - start - gradient.shape[dim])


def _select(gradient: Tensor, input_size: Size, dim: int, index: int) -> Tensor:
    dim = dim % len(input_size)
    return _padded(gradient.unsqueeze(dim), dim, index % input_size[dim], input_size[dim] - index % input_size[dim] - 1)


def _padded(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    return F.pad(x, [0, 0] * (x.dim() - 1 - dim) + [before, after])


def _pair(value: Sequence[Any]) -> Sequence[Any]:
    return tuple(value) * 2 if len(value) == 1 else tuple(value)
