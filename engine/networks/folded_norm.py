"""A batch norm that no longer learns, folded into the convolution before it: the same result from weights and bias alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

NORM_PARTS = ("weight", "bias", "running_mean", "running_var")  # of a batch norm, as torch names them in a file


def folded(state: Mapping[str, Tensor], weight: str, norm: str, *, epsilon: float) -> tuple[Tensor, Tensor]:
    """Weight and bias, float64, of the convolution whose weight has the name `weight`, with the batch norm `norm` after it."""
    gain, bias, mean, variance = (state[f"{norm}.{part}"].double() for part in NORM_PARTS)
    factor = gain / (variance + epsilon).sqrt()
    return state[weight].double() * factor[:, None, None, None], bias - mean * factor


@torch.no_grad()
def fill_convolution(convolution: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """Gives a convolution with a bias its values."""
    assert convolution.bias is not None
    convolution.weight.copy_(weight)
    convolution.bias.copy_(bias)
