"""What is computed: the head of LPIPS (Zhang et al. 2018, equation 1, as the package `lpips` 0.1.x has it), in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def unit_features(features: Tensor, *, epsilon: float) -> Tensor:
    """[N, C, H, W] over its Euclidean norm over channels plus `epsilon`, in float32 (float64 stays float64). Zero stays zero.

    The package's gradient at a pixel of zeros is NaN (0 times the infinite slope of the root); here it is 0, as is the value.
    """
    wide = features.to(torch.float64 if features.dtype == torch.float64 else torch.float32)
    squares = wide.square().sum(dim=1, keepdim=True)
    is_zero = squares == 0  # not `squares > 0`: NaN must stay NaN
    norm = torch.where(is_zero, 1, squares).sqrt()
    return torch.where(is_zero, 0, wide / (norm + epsilon))


def lpips_head(features: Tensor, target: Tensor, weights: Tensor, *, epsilon: float) -> Tensor:
    """features [N, C, H, W], target as features and of unit length, weights [C] -> [N] float32 (float64 for float64 features)."""
    unit = unit_features(features, epsilon=epsilon)
    squared = (unit - target.to(unit.dtype)).square()
    return (squared * weights.to(unit.dtype)[:, None, None]).sum(dim=1).mean(dim=(1, 2))
