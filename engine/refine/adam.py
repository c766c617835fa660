"""Adam whose state belongs to the slot: films come and go, and no slot knows of another."""

from __future__ import annotations

import torch
from torch import Tensor


class SlotAdam:
    """Adam (Kingma and Ba 2015, algorithm 1) on S slots of codes, with a step count for each.

    On every film it does what `torch.optim.Adam` does on that film alone. State is written in place and no step waits for the device,
    so a step can be part of a CUDA graph.
    """

    def __init__(self, like: Tensor, *, lr: float, betas: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8) -> None:
        """Fresh state for codes shaped and placed as `like` [S, *shape] float32."""
        self.lr, self.betas, self.epsilon = lr, betas, epsilon
        self.first = torch.zeros_like(like, requires_grad=False)
        self.second = torch.zeros_like(like, requires_grad=False)
        self.counts = torch.zeros(len(like), dtype=torch.float64, device=like.device)

    def start(self, rows: Tensor) -> None:
        """The slots `rows` [k], by number, get new films: nothing of the former ones is left."""
        for state in (self.first, self.second, self.counts):
            state.index_fill_(0, rows, 0)

    @torch.no_grad()
    def step(self, latents: Tensor, loss: Tensor, gradient: Tensor, active: Tensor) -> Tensor:
        """The codes after one step, [S, *shape]; slots where `active` [S] is False come back as they are. Arguments are not written to."""
        beta1, beta2 = self.betas
        moves = each(active, latents)
        self.counts.add_(active)
        self.first.copy_(torch.where(moves, torch.lerp(self.first, gradient, 1 - beta1), self.first))
        self.second.copy_(torch.where(moves, self.second * beta2 + (1 - beta2) * gradient.square(), self.second))
        counts = self.counts.clamp_min(1)
        scale = each((self.lr / (1 - beta1**counts)).to(latents.dtype), latents)
        root = each((1 - beta2**counts).sqrt().to(latents.dtype), latents)
        return torch.where(moves, latents - scale * self.first / (self.second.sqrt() / root + self.epsilon), latents)


def each(values: Tensor, like: Tensor) -> Tensor:
    """One value a slot [S], shaped to go with `like` [S, ...]."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
