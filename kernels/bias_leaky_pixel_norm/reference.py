"""What is computed: bias, leaky ReLU and pixel norm (Karras et al. 2018, section 4.2), in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def bias_leaky_pixel_norm(x: Tensor, bias: Tensor, *, leak: float, epsilon: float) -> Tensor:
    """x [N, C, H, W], bias [C] -> [N, C, H, W] in the type of `x`; float32 in between, rounded once (float64 stays float64)."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    active = F.leaky_relu(x.to(wide) + bias.to(wide)[:, None, None], leak)
    return (active * torch.rsqrt(active.square().mean(dim=1, keepdim=True) + epsilon)).to(x.dtype)
