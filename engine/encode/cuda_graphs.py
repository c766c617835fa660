"""The CUDA graphs backend: eager's own kernels, ours included, recorded once at one batch shape and replayed with a single launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from engine.encode.fixed_batch import FixedBatch

_WARM_UPS = 3  # libraries choose their kernels and allocate on first calls, which cannot be recorded


def capture(run: Callable[..., Any], *, batch_size: int) -> FixedBatch:
    """`run`, tensors and tuples of tensors to the same, recorded at its first call for batches of exactly `batch_size` rows on CUDA.

    `run` must do the same work whatever the values are and must not wait for the device. Gradients inside it are recorded as well; what
    comes out takes part in none.
    """
    return FixedBatch(_Recorded(run), batch_size=batch_size)


class _Recorded:
    def __init__(self, run: Callable[..., Any]) -> None:
        self._run = run
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: Any = None
        self._outputs: Any = None

    def __call__(self, *rows: Any) -> Any:
        if self._graph is None:
            self._record(rows)
        assert self._graph is not None
        for kept, new in zip(tree_leaves(self._inputs), tree_leaves(rows), strict=True):
            kept.copy_(new)
        self._graph.replay()
        return tree_map(torch.clone, self._outputs)  # the next replay writes over them

    def _record(self, rows: Any) -> None:
        self._inputs = tree_map(_own, rows)
        device = tree_leaves(rows)[0].device
        with torch.cuda.device(device):
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UPS):
                    self._run(*self._inputs)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._outputs = self._run(*self._inputs)
            self._graph = graph


def _own(part: Tensor) -> Tensor:
    return part.detach().clone()
