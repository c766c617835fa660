"""The two places where a network leaves its codec's terms: codes are put on the gauge, films into [-1, 1]."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Gauge = Literal["none", "sphere"]
GAUGES: tuple[Gauge, ...] = ("none", "sphere")


def project(latents: Tensor, gauge: Gauge) -> Tensor:
    """Codes [N, layers, channels] on the gauge. "sphere": each layer gets length sqrt(channels); "none": as they are.

    A generator that starts with pixel norm ignores the length of its code, so a fixed one makes codes comparable and editable.
    Safe at any finite length: the largest entry is divided out before squaring. Zero has no direction and stays zero.
    """
    if gauge == "none":
        return latents
    unit = latents / latents.abs().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return unit * torch.rsqrt(unit.square().mean(dim=-1, keepdim=True).clamp_min(1e-12))


def into_range(films: Tensor) -> Tensor:
    """Films clamped to [-1, 1] exactly, with the gradient of no clamp.

    A plain clamp has gradient 0 beyond the range, so a pixel that overshot could never come back. For a squared error against targets
    in the range this gradient is still that of a convex function with the same minimum.
    """
    return films.clamp(-1, 1).detach() + (films - films.detach())
