"""An exponential moving average of a network's weights, which is what a generator is judged and exported by."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class Ema:
    """`module` is an averaged copy of `network`: `update` makes it decay * average + (1 - decay) * weights; buffers are copied."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(network).requires_grad_(False).eval()
        self._network, self._decay = network, decay

    @torch.no_grad()
    def update(self) -> None:
        """Takes one more state of the network into the average."""
        averages = [average.detach() for average in self.module.parameters()]
        torch._foreach_lerp_(averages, [weight.detach() for weight in self._network.parameters()], 1 - self._decay)
        for average, buffer in zip(self.module.buffers(), self._network.buffers(), strict=True):
            average.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights by name."""
        return self.module.state_dict()

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Puts averaged weights back."""
        self.module.load_state_dict(state)
