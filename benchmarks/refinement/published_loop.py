"""What refinement is measured against: inversion by gradient descent as Weber et al. 2022 published it, in our words, MSE alone."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

LEARNING_RATE = 0.1
RISING, FALLING = 0.05, 0.4  # the shares of the steps in which the rate rises at first and falls at last


class PublishedLoop:
    """Float32 throughout, eager, no slots: Adam on the mean loss of a batch for a fixed number of steps, and the last codes are the result.

    The generator's film is clamped to its range, the codes may leave the sphere, and the first step has rate 0. Generously, and unlike
    some versions of it: the weights are frozen, and features of targets (none for MSE) would be computed once.
    """

    def __init__(self, network: nn.Module, targets: Tensor, start: Tensor, *, steps: int, channels_last: bool = False) -> None:
        """`network`: codes [n, *shape] -> films in [-1, 1]; a copy of it is used. `targets` [n, 1, R, R], `start` [n, *shape]."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self._network = copy.deepcopy(network).to(memory_format=layout).requires_grad_(False).eval()
        self._targets, self._steps, self._done = targets.contiguous(), steps, 0
        self.codes = start.clone().requires_grad_()
        self._optimiser = torch.optim.Adam([self.codes], lr=LEARNING_RATE)

    def step(self) -> None:
        """One of the steps."""
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(self._done / self._steps)
        self._optimiser.zero_grad()
        self._loss(self.codes).backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._done += 1

    def gradient(self, codes: Tensor) -> Tensor:
        """Of each film's own loss: the mean's, times their number."""
        codes = codes.clone().requires_grad_()
        (found,) = torch.autograd.grad(self._loss(codes) * len(codes), codes)
        return found

    def _loss(self, codes: Tensor) -> Tensor:
        films = self._network(codes).clamp(-1, 1)
        loss: Tensor = (films - self._targets).square().mean() / 4  # in [0, 1] units
        return loss


def learning_rate(progress: float) -> float:
    """The rate at `progress` in [0, 1): up in a straight line, level, down along half a cosine."""
    rising = min(1.0, progress / RISING)
    falling = min(1.0, (1 - progress) / FALLING)
    return LEARNING_RATE * rising * (1 - math.cos(math.pi * falling)) / 2
