"""A refinement step for slots of codes in one launch and in place: best so far, Adam with a step count for each slot, and the gauge."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from kernels.adam_step import reference
from kernels.adam_step.cases import DTYPES, MAX_CHANNELS, blocks_for
from kernels.adam_step.state import AdamState
from kernels.dispatch import Impl, use_kernel

__all__ = ["AdamState", "Gauge", "adam_step"]

Gauge = Literal["none", "sphere"]


def adam_step(
    latents: Tensor,
    gradient: Tensor,
    loss: Tensor,
    state: AdamState,
    *,
    active: Tensor,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    gauge: Gauge = "none",
    impl: Impl = "auto",
) -> None:
    """Offers the codes [S, ...], of which `loss` [S] and `gradient` [S, ...] were found, to the best so far, then makes one step of Adam.

    Writes into `latents` and `state`, and nothing of a slot where `active` [S] bool is false. In the other slots:
    - where loss and code are finite and the loss is below `best_loss`: best, best_loss and best_step become code, loss and counts;
    - where loss, code and the whole gradient are finite: counts grows by 1 and moments and code make the step of `torch.optim.Adam`. With
      gauge "sphere" each row along the last axis then gets length sqrt(its entries), safely at any finite length; zero stays zero.
      Elsewhere code and moments stay as they are.
    latents, loss, first, second, best, best_loss: float32 (float64 by the reference only), contiguous. gradient: float32, bfloat16, float16
    or float64, any strides. The kernel takes rows of 1 to 4096 entries on the sphere; what it does to a slot is the same, bit for bit,
    whatever the others hold. Not differentiable.
    Raises ValueError for inputs that make no sense, `KernelUnavailable` as `use_kernel` does. Source: Kingma and Ba 2015, algorithm 1.
    """
    _check_settings(lr, betas, epsilon, gauge)
    _check_tensors(latents, gradient, loss, state, active)
    if not use_kernel(latents, impl, obstacle=_obstacle(latents, gradient, gauge)):
        reference.adam_step(latents, gradient, loss, state, active=active, lr=lr, betas=betas, epsilon=epsilon, gauge=gauge)
        return
    kept = (state.first, state.second, state.counts, state.best, state.best_loss, state.best_step)
    numbers = (float(lr), *map(float, betas), float(epsilon))
    _step(latents, gradient.contiguous(), loss.contiguous(), *kept, active.contiguous(), *numbers, gauge)


def _check_settings(lr: float, betas: tuple[float, float], epsilon: float, gauge: Gauge) -> None:
    if not 0 <= lr < math.inf:
        raise ValueError(f"lr must be 0 or more and finite: {lr}")
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas must be 0 or more and below 1: {betas}")
    if not epsilon > 0:
        raise ValueError(f"epsilon must be above 0: {epsilon}")
    if gauge not in get_args(Gauge):
        raise ValueError(f"gauge must be one of {', '.join(get_args(Gauge))}: {gauge!r}")


def _check_tensors(latents: Tensor, gradient: Tensor, loss: Tensor, state: AdamState, active: Tensor) -> None:
    if latents.dim() < 2 or 0 in latents.shape[1:]:
        raise ValueError(f"codes must be [S, ...] with a value or more for each slot, not of shape: {tuple(latents.shape)}")
    if latents.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"codes must be float32 or float64, not: {latents.dtype}")
    if gradient.dtype not in (*DTYPES, torch.float64):
        raise ValueError(f"gradient must be float32, bfloat16, float16 or float64, not: {gradient.dtype}")
    wide, each = latents.shape, latents.shape[:1]
    written = {
        "codes": (latents, wide, latents.dtype),
        "state.first": (state.first, wide, latents.dtype),
        "state.second": (state.second, wide, latents.dtype),
        "state.counts": (state.counts, each, torch.int32),
        "state.best": (state.best, wide, latents.dtype),
        "state.best_loss": (state.best_loss, each, latents.dtype),
        "state.best_step": (state.best_step, each, torch.int32),
    }
    read = {"gradient": (gradient, wide, gradient.dtype), "loss": (loss, each, latents.dtype), "active": (active, each, torch.bool)}
    for name, (tensor, shape, dtype) in (written | read).items():
        if tensor.shape != shape:
            raise ValueError(f"{name} must be of shape {tuple(shape)}, not: {tuple(tensor.shape)}")
        if tensor.dtype != dtype:
            raise ValueError(f"{name} must be {dtype} where codes are {latents.dtype}, not: {tensor.dtype}")
        if tensor.device != latents.device:
            raise ValueError(f"codes and {name} are on different devices: {latents.device} and {tensor.device}")
        if tensor.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"`adam_step` writes in place and has no gradient; call it under `torch.no_grad()` or detach: {name}")
    for name, (tensor, _, _) in written.items():
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous to be written in place, not of strides: {tensor.stride()}")
    if state.best is latents:
        raise ValueError("state.best must not be the codes themselves, which move on; pass a copy")


def _obstacle(latents: Tensor, gradient: Tensor, gauge: Gauge) -> str | None:
    """Why the kernel cannot take these inputs, which the reference can, or None."""
    if torch.float64 in (latents.dtype, gradient.dtype):
        return "the kernel of adam_step computes in float32; take impl='reference' for float64"
    if gauge == "sphere" and latents.shape[-1] > MAX_CHANNELS:
        return f"the kernel of adam_step takes rows of 1 to {MAX_CHANNELS} on the sphere; take impl='reference' for: {latents.shape[-1]}"
    return None


_WRITTEN = ("latents", "first", "second", "counts", "best", "best_loss", "best_step")


# An opaque op rather than `triton_op`, as everywhere in this package: see its README.
@torch.library.custom_op("latentray::adam_step", mutates_args=_WRITTEN)
def _step(
    latents: Tensor,
    gradient: Tensor,
    loss: Tensor,
    first: Tensor,
    second: Tensor,
    counts: Tensor,
    best: Tensor,
    best_loss: Tensor,
    best_step: Tensor,
    active: Tensor,
    lr: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    gauge: str,
) -> None:
    from kernels.adam_step.kernel import adam_kernel  # here, since Triton is not everywhere

    slots, values = len(latents), latents[:1].numel()
    if slots == 0:
        return
    device_name = torch.cuda.get_device_name(latents.device) if latents.is_cuda else "interpreter"
    blocks = blocks_for(device_name, values, latents.shape[-1], gauge)
    # Triton launches on the current device, which need not be this one; -1, the CPU, changes none
    with torch.cuda.device(latents.get_device()):
        adam_kernel[(slots,)](
            *(latents, gradient, loss, first, second, counts, best, best_loss, best_step, active, lr, epsilon),
            VALUES=values,
            WIDTH=blocks.width,
            ON_SPHERE=gauge == "sphere",
            BETA1=beta1,
            BETA2=beta2,
            LOG2_BETA1=_log2(beta1),
            LOG2_BETA2=_log2(beta2),
            BLOCK_ROWS=blocks.block_rows,
            BLOCK_WIDTH=blocks.block_width,
            num_warps=blocks.warps,
        )


def _log2(beta: float) -> float:
    return math.log2(beta) if beta else -math.inf


@_step.register_fake
def _(*_: object) -> None: ...
