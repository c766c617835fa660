"""The Inductor backend: torch.compile at one batch shape, so that neither a partial last batch nor an odd one compiles again."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import torch
from torch import nn

from engine.encode.fixed_batch import FixedBatch
from engine.errors import BackendError


def compile_inductor(network: nn.Module, *, batch_size: int, device: torch.device) -> FixedBatch:
    """A frozen network, or a gradient graph, compiled for batches of exactly `batch_size` rows on `device`; call it without gradients.

    Weights count as constants, so that they are laid out once as the processor wants them. On CUDA the launches are recorded as a CUDA
    graph and replayed. Nothing is compiled before the first call. Raises BackendError where a tool that compilation needs is missing.
    """
    _check_tools(device)
    options: dict[str, Any] = {"freezing": True}
    if device.type == "cuda":
        options["triton.cudagraphs"] = True
    compiled = torch.compile(network, fullgraph=True, dynamic=False, options=options)
    return FixedBatch(_owned(compiled) if device.type == "cuda" else compiled, batch_size=batch_size)


def _owned(compiled: Any) -> Any:
    """Results in memory of their own: the next replay of a CUDA graph writes over those of this one."""
    from torch.utils._pytree import tree_map

    return lambda *rows: tree_map(torch.clone, compiled(*rows))


def _check_tools(device: torch.device) -> None:
    if device.type == "cpu":
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
        if shutil.which(compiler) is None:
            raise BackendError(
                f"backend inductor needs a C++ compiler on a CPU; install it, or set CXX, or use --backend eager: {compiler}"
            )
