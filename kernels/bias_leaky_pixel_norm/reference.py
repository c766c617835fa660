"""What is computed: bias, leaky ReLU, pixel norm (Karras et al. 2018, section 4.2) and, if wanted, upsampling, in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def bias_leaky_pixel_norm(x: Tensor, bias: Tensor, *, leak: float, epsilon: float, upsample: bool) -> Tensor:
    """x [N, C, H, W], bias [C] -> [N, C, H, W], or [N, C, 2H, 2W] by nearest neighbour, in the type of `x`.

    float32 in between (float64 stays float64), rounded once: the upsampling is there as well, so that four gradients are summed unrounded.
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    active = F.leaky_relu(x.to(wide) + bias.to(wide)[:, None, None], leak)
    y = active * torch.rsqrt(active.square().mean(dim=1, keepdim=True) + epsilon)
    if upsample:
        y = F.interpolate(y, scale_factor=2.0, mode="nearest")
    return y.to(x.dtype)
