"""The precisions of a run by name: whole float32, or half precision where torch's autocast finds it safe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

DTYPES: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def in_precision(run: Callable[..., Any], device: torch.device, dtype: torch.dtype | None) -> Callable[..., Any]:
    """`run` under autocast to `dtype`, or in whole float32 where that is None; its results, tensors or tuples of them, in float32."""

    def call(*rows: Any) -> Any:
        with computing_in(device, dtype):
            return tree_map(Tensor.float, run(*rows))

    return call


def computing_in(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """Autocast to `dtype` on `device`, or whole float32 where that is None."""
    return whole_float32() if dtype is None else torch.autocast(device.type, dtype=dtype)


def without_gradients(run: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """`run` on `device`, outside inference mode: its tensors could not take part in a gradient when codes are refined."""

    def call(*rows: Any) -> Any:
        with torch.inference_mode(False), torch.no_grad():
            return run(*tree_map(lambda part: part.to(device, non_blocking=True), rows))

    return call


@contextmanager
def whole_float32() -> Iterator[None]:
    """No TF32, which has 11 bits instead of 24, and which torch takes for convolutions on a GPU unless told not to."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 itself (AVX-512 BF16 or AMX); elsewhere it is slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
