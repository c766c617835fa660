"""The last codes that an encoder made in training, kept for what is fitted to codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RecentCodes(nn.Module):
    """A ring of `count` codes [count, d]: the newest take the place of the oldest. It is part of a run's state."""

    rows: Tensor
    seen: Tensor

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(count, size))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def add(self, codes: Tensor) -> None:
        """Takes codes [n, d], n of any size."""
        count = len(self.rows)
        first = int(self.seen)
        kept = codes.detach().float()[-count:]
        start = first + len(codes) - len(kept)
        places = (start + torch.arange(len(kept), device=kept.device)) % count
        self.rows[places] = kept
        self.seen += len(codes)

    def codes(self) -> Tensor:
        """The codes that are there [n, d], n at most `count`, in no order."""
        return self.rows[: min(int(self.seen), len(self.rows))]
