"""Optimisers whose state belongs to the image: rows come and go, and no row knows of another."""

from __future__ import annotations

import torch
from torch import Tensor


class PerImageAdam:
    """Adam (Kingma and Ba 2015, algorithm 1) on a batch of codes, with a step count for each image.

    On every image it does what `torch.optim.Adam` does on that image alone.
    """

    def __init__(self, latents: Tensor, *, lr: float, betas: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8) -> None:
        """State of zeros for codes [N, *shape] float32."""
        self.lr, self.betas, self.epsilon = lr, betas, epsilon
        self.first = torch.zeros_like(latents)
        self.second = torch.zeros_like(latents)
        self.counts = torch.zeros(len(latents), dtype=torch.float64, device=latents.device)

    def step(self, latents: Tensor, gradient: Tensor) -> Tensor:
        """The codes after one step, [N, *shape]; its arguments stay as they are."""
        beta1, beta2 = self.betas
        self.counts += 1
        self.first = torch.lerp(self.first, gradient, 1 - beta1)
        self.second = self.second * beta2 + (1 - beta2) * gradient.square()
        scale = self.lr / (1 - beta1**self.counts)
        root = (1 - beta2**self.counts).sqrt()
        return latents - _each(scale, latents) * self.first / (self.second.sqrt() / _each(root, latents) + self.epsilon)

    def keep(self, index: Tensor) -> None:
        """Forgets all images but these: `index` is a mask [N] or row numbers."""
        self.first, self.second, self.counts = self.first[index], self.second[index], self.counts[index]


def _each(values: Tensor, latents: Tensor) -> Tensor:
    """One value an image [N], shaped and typed to multiply codes [N, *shape]."""
    return values.to(latents.dtype).reshape(-1, *[1] * (latents.ndim - 1))
