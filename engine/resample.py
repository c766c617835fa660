"""Lanczos resizing of float films, differentiable and on any device: two matrix products with cached weights."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

LOBES = 3  # of the windowed sinc, on either side of its centre


def resize_film(x: Tensor, size: int) -> Tensor:
    """Films [N, C, h, w] of any range -> [N, C, size, size], float32 (float64 stays so); the tensor itself where it has that size.

    The 3-lobed Lanczos filter, widened by the scale when it shrinks, weights renormalised at the border: what Pillow's LANCZOS does
    to a float image. It overshoots at edges, so the result may leave the range of its input a little.
    Differentiable in `x`. Raises ValueError unless `x` has four dimensions and `size` is 1 or more.
    """
    if x.ndim != 4 or size < 1:
        raise ValueError(f"resize_film takes [N, C, h, w] and a positive size: {tuple(x.shape)}, {size}")
    if x.shape[-2:] == (size, size):
        return x
    if x.dtype != torch.float64:
        x = x.float()
    with torch.autocast(x.device.type, enabled=False):  # half-precision weights would cost three digits
        x = x @ lanczos_weights(x.shape[-1], size, x.device, x.dtype).t()
        return lanczos_weights(x.shape[-2], size, x.device, x.dtype) @ x


@lru_cache(maxsize=32)
def lanczos_weights(num_in: int, num_out: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[num_out, num_in]: row i holds what each input sample gives to output sample i; every row sums to 1."""
    with torch.inference_mode(False):  # made inside inference mode, the cached matrix could never take part in a gradient
        scale = num_in / num_out
        stretch = max(scale, 1.0)
        centres = (torch.arange(num_out, dtype=torch.float64) + 0.5) * scale
        positions = torch.arange(num_in, dtype=torch.float64)
        first = (centres - LOBES * stretch + 0.5).clamp(min=0).floor()
        last = (centres + LOBES * stretch + 0.5).clamp(max=num_in).floor()
        offsets = (positions[None] + 0.5 - centres[:, None]) / stretch
        kernel = torch.sinc(offsets) * torch.sinc(offsets / LOBES)
        inside = (positions[None] >= first[:, None]) & (positions[None] < last[:, None]) & (offsets.abs() < LOBES)
        weights = torch.where(inside, kernel, 0.0)
        return (weights / weights.sum(1, keepdim=True)).to(device=device, dtype=dtype)
