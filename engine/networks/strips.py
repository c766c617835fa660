"""Norms and convolutions of a large activation strip by strip: one film at 1024x1024 in the memory of two activations, not of five."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pointwise = Callable[[Tensor], Tensor]


def strips(height: int, rows: int) -> Iterator[tuple[int, int]]:
    """The first row of each strip of `rows` rows and the row after its last; the last strip may be lower."""
    for first in range(0, height, rows):
        yield first, min(first + rows, height)


def normed(norm: nn.GroupNorm, x: Tensor, rows: int) -> Pointwise:
    """`norm` then SiLU (x * sigmoid(x)) as a function of any strip of `x` [N, C, H, W], with the mean and variance of the whole of `x`.

    Each strip's mean and variance are joined by their counts (Chan et al. 1979), in float64: the norm is exact, up to rounding. torch's own
    group norm in float32 is not on the CPU where channels lie last: on 512x512 it is off by 3e-4 (found with torch 2.14).
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    counts: list[int] = []
    moments: list[Tensor] = []
    for first, end in strips(x.shape[2], rows):
        strip = x[:, :, first:end].to(wide)
        grouped = strip.view(len(x), norm.num_groups, -1, *strip.shape[2:])  # [N, G, C / G, rows, W]
        variance, mean = torch.var_mean(grouped, (2, 3, 4), correction=0)
        counts.append(end - first)
        moments.append(torch.stack((mean, variance)).double())
    each = torch.stack(moments)  # [strips, 2, N, G]
    share = torch.tensor(counts, dtype=torch.float64, device=x.device).div_(x.shape[2])[:, None, None]
    mean = (share * each[:, 0]).sum(0)
    variance = (share * (each[:, 1] + (each[:, 0] - mean).square())).sum(0)
    inverse = torch.rsqrt(variance + norm.eps)  # [N, G]
    size = x.shape[1] // norm.num_groups
    scale = inverse.repeat_interleave(size, 1) * norm.weight  # [N, C]
    shift = norm.bias - mean.repeat_interleave(size, 1) * scale
    scale, shift = (part.to(wide)[:, :, None, None] for part in (scale, shift))
    in_place = not torch.is_grad_enabled()
    return lambda strip: F.silu(torch.addcmul(shift, strip.to(wide), scale), inplace=in_place).to(x.dtype)


def convolved(
    conv: nn.Conv2d, x: Tensor, rows: int, *, before: Pointwise | None = None, upsample: bool = False, onto: Tensor | None = None
) -> Tensor:
    """`conv` of `x` [N, C, H, W], `rows` rows of the result at a time, each strip with the rows above and below that it reads.

    A kernel of 3 is padded with zeros by 1 on each side at stride 1, and at stride 2 by 1 at the right and the bottom only; a kernel of 1
    is not. `before` is done to each strip first, and nearest neighbours double both sides with `upsample`. `onto` has the result added to
    it in place and is returned; it may be what `before` never reads, not `x`.
    """
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    low, high = margins(conv)
    height = x.shape[2] * (2 if upsample else 1)
    out_height = (height + low + high - kernel) // stride + 1
    out = onto
    for first, end in strips(out_height, rows):
        top, bottom = first * stride - low, (end - 1) * stride - low + kernel
        strip = _rows(x, max(top, 0), min(bottom, height), before, upsample=upsample)
        strip = F.pad(strip, (low, high, max(-top, 0), max(bottom - height, 0)))
        result = F.conv2d(strip, conv.weight, conv.bias, stride)
        if onto is not None:
            onto[:, :, first:end] += result
            continue
        if out is None:
            # channels last, so that a strip is one piece of memory
            shape = (result.shape[0], result.shape[1], out_height, result.shape[3])
            out = torch.empty(shape, dtype=result.dtype, device=result.device, memory_format=torch.channels_last)
        out[:, :, first:end] = result
    assert out is not None, "an activation has rows"
    return out


def margins(conv: nn.Conv2d) -> tuple[int, int]:
    """The zeros before the first and after the last pixel of each row and column."""
    if conv.kernel_size[0] == 1:
        return 0, 0
    return (1, 1) if conv.stride[0] == 1 else (0, 1)


def _rows(x: Tensor, first: int, end: int, before: Pointwise | None, *, upsample: bool) -> Tensor:
    """Rows `first` to `end` of what is convolved."""
    if not upsample:
        strip = x[:, :, first:end]
        return strip if before is None else before(strip)
    above = first // 2
    strip = x[:, :, above : (end + 1) // 2]
    strip = F.interpolate(strip if before is None else before(strip), scale_factor=2.0, mode="nearest")
    return strip[:, :, first - 2 * above : end - 2 * above]
