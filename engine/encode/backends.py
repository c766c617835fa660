"""The backends by name: which one suits a codec on a device, and a network or graph built for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from engine.config import Backend, Precision
from engine.encode.codec import Codec
from engine.encode.cost import codec_cost
from engine.encode.cuda_graphs import capture
from engine.encode.fixed_batch import in_pieces
from engine.encode.inductor import compile_inductor
from engine.encode.precision import cpu_has_bf16
from engine.encode.tensorrt import check_tensorrt, compile_tensorrt, has_tensorrt
from engine.errors import BackendError

HEAVY_GFLOP = 1.0  # a film: below it, half precision on a CPU gains nothing that would be worth its rounding
COMPILING_PAYS_GFLOP = 60_000.0  # a run: some ten minutes of a small CPU, where compiling takes one or two


def check_backend(backend: Backend) -> None:
    """Raises BackendError for a backend that was asked for and cannot run here, so that a job can refuse it before it writes anything."""
    if backend == "tensorrt":
        check_tensorrt()
    if backend == "cudagraphs" and not torch.cuda.is_available():
        raise BackendError("backend cudagraphs needs a CUDA device, use --backend auto, inductor or eager")


def choices(
    codec: Codec, backend: Backend, precision: Precision, *, gigaflops: float, film_gflop: float | None = None
) -> list[tuple[str, str]]:
    """What to try, in order, as (backend, precision), for a codec on its device and a run of `gigaflops`.

    `film_gflop`: what a film takes, where that is more than coding or making it.

    "auto" on a GPU: TensorRT where it is installed, Inductor, CUDA graphs, eager, each in bfloat16 and at last in float32. On a CPU:
    Inductor where the run is long enough for compiling to pay, then eager; in bfloat16 where the processor has it and the codec is heavy,
    which the linear ones are not, then in float32. Raises BackendError as `check_backend`.
    """
    check_backend(backend)
    if codec.device.type == "cuda":
        backends = [*(["tensorrt"] if has_tensorrt() else []), "inductor", "cudagraphs", "eager"]
        precisions = ["bf16", "fp32"]
    else:
        backends = [*(["inductor"] if gigaflops >= COMPILING_PAYS_GFLOP else []), "eager"]
        precisions = ["bf16", "fp32"] if precision == "auto" and cpu_has_bf16() and _is_heavy(codec, film_gflop) else ["fp32"]
    backends = [backend] if backend != "auto" else backends
    precisions = [precision] if precision != "auto" else precisions
    return [(chosen, digits) for digits in precisions for chosen in backends]


def find_device(name: str | None) -> torch.device:
    """The device of this name, or the first GPU, or the CPU. Raises BackendError for one that is not here."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise BackendError(f"device must be cpu, cuda or cuda:N: {name}") from None
    if device.type not in ("cpu", "cuda"):
        raise BackendError(f"device must be cpu, cuda or cuda:N: {name}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BackendError(f"no such GPU here (found {torch.cuda.device_count()}): {name}")
    return device


def build_backend(
    backend: str, network: nn.Module, examples: tuple[Any, ...], *, batch_size: int, digest: str, name: str, precision: str
) -> Callable[..., Any]:
    """A frozen network, or a graph of forward operators, on a backend; call it without gradients, with any number of rows.

    `examples` are arguments of any number of rows, tensors or tuples of tensors on the device; `digest` and `name` say whose network it
    is, for what a backend keeps on the disk. Raises BackendError where the backend does not build here.
    """
    device = tree_leaves(examples)[0].device
    if backend == "inductor":
        return compile_inductor(network, batch_size=batch_size, device=device)
    if backend == "tensorrt":
        return compile_tensorrt(network, examples, batch_size=batch_size, precision=precision, digest=digest, name=name)
    if backend == "cudagraphs":
        return capture(network, batch_size=batch_size)
    return in_pieces(network, batch_size)


def _is_heavy(codec: Codec, film_gflop: float | None) -> bool:
    if film_gflop is None:
        cost = codec_cost(codec)
        film_gflop = max(cost.encode, cost.generate)
    return film_gflop >= HEAVY_GFLOP
