"""Batches cut to size: in pieces of so many rows at most, or padded to exactly so many for what is compiled or captured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map


def in_pieces(run: Callable[..., Any], batch_size: int) -> Callable[..., Any]:
    """No more than `batch_size` rows at once, whatever the caller has."""

    def call(*rows: Any) -> Any:
        count = len(tree_leaves(rows)[0])
        found = [run(*tree_map(lambda part: part[at : at + batch_size], rows)) for at in range(0, max(count, 1), batch_size)]  # noqa: B023
        return found[0] if len(found) == 1 else tree_map(lambda *parts: torch.cat(parts), *found)

    return call


class FixedBatch:
    """Calls `run` with batches of exactly `batch_size` rows. Fewer are padded with copies of the last one, more are cut in pieces.

    One shape also means one choice of kernels: a film gets the same code in a full batch as in a partial one. Arguments and results are
    tensors, or tuples of tensors, that all have one entry a row.
    """

    def __init__(self, run: Callable[..., Any], *, batch_size: int) -> None:
        self._run, self.batch_size = run, batch_size
        self._pieces = in_pieces(self._padded, batch_size)

    def __call__(self, *rows: Any) -> Any:
        """[n, ...] -> [n, ...] for any n."""
        return self._pieces(*rows)

    def _padded(self, *rows: Any) -> Any:
        count = len(tree_leaves(rows)[0])

        def padded(part: Tensor) -> Tensor:
            # always fresh: strides and flags of the caller's would compile anew; but features in channels-last order are to stay so
            size, is_plain = (self.batch_size, *part.shape[1:]), part.dim() != 4 or part.is_contiguous()
            layout = torch.contiguous_format if is_plain else torch.channels_last
            batch = torch.zeros_like(torch.empty(size, dtype=part.dtype, device=part.device, memory_format=layout))
            batch[:count] = part
            if count:
                batch[count:] = part[-1]
            return batch

        return tree_map(lambda part: part[:count], self._run(*tree_map(padded, rows)))
