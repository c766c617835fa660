"""The Inductor backend: torch.compile at one batch shape, so that neither a partial last batch nor an odd one compiles again."""

from __future__ import annotations

import os
import shutil
import sys

import torch
from torch import Tensor, nn

from engine.errors import BackendError


class CompiledStage:
    """A network compiled for batches of exactly `batch_size` rows. Fewer are padded with copies of the last one, more are cut in pieces.

    One shape also means one choice of kernels: a film gets the same code in a full batch as in a partial one.
    """

    def __init__(self, network: nn.Module, *, batch_size: int) -> None:
        """Nothing is compiled before the first call. Raises BackendError where a tool that compilation needs is missing."""
        _check_tools(next((tensor.device for tensor in (*network.parameters(), *network.buffers())), torch.device("cpu")))
        self.batch_size = batch_size
        self._compiled = torch.compile(network, fullgraph=True, dynamic=False)

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, ...] -> [n, ...], for any n."""
        return torch.cat([self._piece(piece) for piece in torch.split(rows, self.batch_size)])

    def _piece(self, rows: Tensor) -> Tensor:
        batch = rows.new_zeros(self.batch_size, *rows.shape[1:])  # always fresh: strides and flags of the caller's would compile anew
        batch[: len(rows)] = rows
        if len(rows):
            batch[len(rows) :] = rows[-1]
        result: Tensor = self._compiled(batch)
        return result[: len(rows)]


def _check_tools(device: torch.device) -> None:
    if device.type == "cpu":
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
        if shutil.which(compiler) is None:
            raise BackendError(
                f"backend inductor needs a C++ compiler on a CPU; install it, or set CXX, or use --backend eager: {compiler}"
            )
