"""The gradient of the summed loss with respect to codes, as autograd computes it. `gradient.py` makes one graph of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Features = tuple[Tensor, ...]  # what an objective keeps of its targets; each tensor has one entry an image in dimension 0
Found = tuple[Tensor, Tensor, Tensor]
GradientStep = Callable[[Tensor, Features], Found]  # codes [n, *shape] -> loss [n], MSE [n], gradient of the summed loss [n, *shape]


def by_autograd(generate: Callable[[Tensor], Tensor], objective: Callable[[Tensor, Features], tuple[Tensor, Tensor]]) -> GradientStep:
    """The gradient as torch computes it: right for any differentiable `generate`, and what the graph below is held against.

    `generate`: codes [n, *shape] -> pixels [n, 1, R, R]; `objective`: pixels and features -> loss [n] and MSE [n]. The sum may well be
    NaN: its gradient is 1 for each loss all the same, so nothing passes from one image to another. Codes may come from inference mode;
    what is returned takes part in no further gradient.
    """

    def step(latents: Tensor, features: Features) -> Found:
        with torch.inference_mode(False), torch.enable_grad():
            codes = (latents.clone() if latents.is_inference() else latents.detach()).requires_grad_(True)
            loss, mse = objective(generate(codes), features)
            (gradient,) = torch.autograd.grad(loss.sum(), codes)
        return loss.detach(), mse.detach(), gradient

    return step
