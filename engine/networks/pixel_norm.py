"""Pixel normalisation (Karras et al. 2018, section 4.2), in single precision whatever the type of its input."""

from __future__ import annotations

import torch
from torch import Tensor


def pixel_norm(x: Tensor, *, epsilon: float = 1e-8) -> Tensor:
    """x [N, C, ...] divided by the root mean square over its channels, in the type of `x`.

    Half precision cannot hold the epsilon (1e-8 is 0 there, so a zero pixel would become NaN) nor the square of 256 and more
    (infinite, so the pixel would become 0): both are computed in float32.
    """
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(dim=1, keepdim=True) + epsilon)).to(x.dtype)
