"""Batches of one size: what is compiled for it, or captured with it, takes any number of rows through this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map


class FixedBatch:
    """Calls `run` with batches of exactly `batch_size` rows. Fewer are padded with copies of the last one, more are cut in pieces.

    One shape also means one choice of kernels: a film gets the same code in a full batch as in a partial one. Arguments and results are
    tensors, or tuples of tensors, that all have one entry a row.
    """

    def __init__(self, run: Callable[..., Any], *, batch_size: int) -> None:
        self._run, self.batch_size = run, batch_size

    def __call__(self, *rows: Any) -> Any:
        """[n, ...] -> [n, ...] for any n."""
        count = len(tree_leaves(rows)[0])
        pieces = [self._piece(rows, at, min(count - at, self.batch_size)) for at in range(0, max(count, 1), self.batch_size)]
        return pieces[0] if len(pieces) == 1 else tree_map(lambda *parts: torch.cat(parts), *pieces)

    def _piece(self, rows: Any, start: int, count: int) -> Any:
        def padded(part: Tensor) -> Tensor:
            # always fresh: strides and flags of the caller's would compile anew; but features in channels-last order are to stay so
            size, is_plain = (self.batch_size, *part.shape[1:]), part.dim() != 4 or part.is_contiguous()
            layout = torch.contiguous_format if is_plain else torch.channels_last
            batch = torch.zeros_like(torch.empty(size, dtype=part.dtype, device=part.device, memory_format=layout))
            batch[:count] = part[start : start + count]
            if count:
                batch[count:] = part[start + count - 1]
            return batch

        return tree_map(lambda part: part[:count], self._run(*tree_map(padded, rows)))
