"""What is kept of the codes that come by in a training: their mean, and how the very first ones lie."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainers.nets.sided_encoder import SidedEncoder


class RunningMean(nn.Module):
    """The mean of codes [N, layers, channels] that come by, in which older ones count less and less: `half` of them count half."""

    value: Tensor
    weight: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(shape))
        self.register_buffer("weight", torch.zeros(()))
        self._new: list[Tensor] = []

    def start(self, value: Tensor, images: int) -> None:
        """Begins with a mean that is known, as if so many codes had made it."""
        self.value.copy_(value)
        self.weight.fill_(images)

    def add(self, codes: Tensor) -> None:
        """Takes note of codes of this step."""
        self._new.append(codes.detach())

    @torch.no_grad()
    def update(self, half: int) -> None:
        """Takes the codes noted since the last time into the mean, those of all processes."""
        new = torch.cat(self._new)
        self._new.clear()
        total, count = new.sum(dim=0), new.new_tensor(float(len(new)))
        _sum_over_processes(total, count)
        self.weight.mul_(0.5 ** (count / half)).add_(count)
        self.value.lerp_(total / count, count / self.weight)


class FirstCodes(nn.Module):
    """The raw codes of a fresh encoder's first step, by which its last layer is standardised, once."""

    is_done: Tensor

    def __init__(self, *, is_done: bool) -> None:
        super().__init__()
        self.register_buffer("is_done", torch.tensor(is_done))
        self._new: list[Tensor] = []

    def add(self, raw: Tensor) -> None:
        """Takes note of raw codes [N, 1, d] of the first step; later ones are passed over."""
        if not self.is_done:
            self._new.append(raw.detach())

    @torch.no_grad()
    def apply_to(self, encoder: SidedEncoder, *, spread: float = 1.0) -> None:
        """After the first step: gives the codes noted, those of all processes, mean 0 and this spread."""
        if self.is_done:
            return
        raw = torch.cat(self._new)
        self._new.clear()
        total, square, count = raw.sum(dim=0), raw.square().sum(dim=0), raw.new_tensor(float(len(raw)))
        _sum_over_processes(total, square, count)
        mean = total / count  # [1, d]
        now = (square / count - mean.square()).mean().clamp_min(1e-12).sqrt()
        encoder.standardise(mean, now / spread)
        self.is_done.fill_(True)


def _sum_over_processes(*values: Tensor) -> None:
    if dist.is_initialized():
        for value in values:
            dist.all_reduce(value)
