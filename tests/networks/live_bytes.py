"""How much memory a network's tensors take at most, counted on fake tensors: nothing is computed and nothing allocated."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages made while it is on that are still held; `peak` is the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._held: set[int] = set()

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._hold(leaf.untyped_storage())
        return result

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._held:
            return
        self._held.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._held.discard(key)
        self.now -= size


def peak_bytes(network: nn.Module, *shape: int) -> int:
    """The most bytes that `network`, on the meta device, holds at once on top of its weights and an input of this shape."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        network = network.to_empty(device="cpu")
        x = torch.empty(shape)
        with LiveBytes() as live:
            network(x)
    return live.peak
