"""What `adam_step` keeps of every slot between steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AdamState:
    """Moments, steps made and the best code so far of S slots, for codes [S, ...] in float32. `adam_step` writes into these tensors."""

    first: Tensor  # [S, ...]: running mean of the gradient
    second: Tensor  # [S, ...]: running mean of its square
    counts: Tensor  # [S] int32: steps made by the film in this slot
    best: Tensor  # [S, ...]: the first code with the least loss, the code of the start until there is one
    best_loss: Tensor  # [S]: its loss, infinity until there is one
    best_step: Tensor  # [S] int32: steps that were made before it

    @classmethod
    def of(cls, latents: Tensor) -> AdamState:
        """Of films that start at `latents` [S, ...], which are copied."""
        counts = torch.zeros(len(latents), dtype=torch.int32, device=latents.device)
        return cls(
            first=torch.zeros_like(latents, memory_format=torch.contiguous_format),
            second=torch.zeros_like(latents, memory_format=torch.contiguous_format),
            counts=counts,
            best=latents.detach().clone(memory_format=torch.contiguous_format),
            best_loss=torch.full((len(latents),), torch.inf, dtype=latents.dtype, device=latents.device),
            best_step=counts.clone(),
        )

    def restart(self, rows: Tensor, latents: Tensor) -> None:
        """Other films start in the slots `rows`, a mask [S] or row numbers, at their codes in `latents` [S, ...]."""
        for tensor in (self.first, self.second, self.counts, self.best_step):
            tensor[rows] = 0
        self.best[rows] = latents[rows]
        self.best_loss[rows] = torch.inf
