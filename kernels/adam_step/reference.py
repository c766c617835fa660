"""What is computed: best-so-far, Adam (Kingma and Ba 2015, algorithm 1) and the gauge, slot for slot, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.adam_step.state import AdamState


def adam_step(
    latents: Tensor,
    gradient: Tensor,
    loss: Tensor,
    state: AdamState,
    *,
    active: Tensor,
    lr: float,
    betas: tuple[float, float],
    epsilon: float,
    gauge: str,
) -> None:
    """Writes into `latents` [S, ...] and `state`. gradient: as latents, of any type. loss [S], active [S] bool."""
    beta1, beta2 = betas
    gradient = gradient.to(latents.dtype)
    is_finite = active & loss.isfinite() & latents.isfinite().flatten(1).all(1)
    is_better = is_finite & (loss < state.best_loss)
    _put(state.best, latents, is_better)
    _put(state.best_loss, loss, is_better)
    _put(state.best_step, state.counts, is_better)

    moves = is_finite & gradient.isfinite().flatten(1).all(1)
    counts = state.counts + 1
    first = torch.lerp(state.first, gradient, 1 - beta1)
    second = state.second * beta2 + (1 - beta2) * gradient.square()
    scale = _each(lr / (1 - beta1 ** counts.double()), latents)
    root = _each((1 - beta2 ** counts.double()).sqrt(), latents)
    codes = latents - scale * first / (second.sqrt() / root + epsilon)
    _put(latents, _on_sphere(codes) if gauge == "sphere" else codes, moves)
    _put(state.first, first, moves)
    _put(state.second, second, moves)
    _put(state.counts, counts, moves)


def _on_sphere(codes: Tensor) -> Tensor:
    """Each row along the last axis with length sqrt(its entries): the largest entry is divided out before squaring; zero stays zero."""
    unit = codes / codes.abs().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return unit * torch.rsqrt(unit.square().mean(dim=-1, keepdim=True).clamp_min(1e-12))


def _each(values: Tensor, like: Tensor) -> Tensor:
    """One value a slot [S], shaped and typed to go with `like` [S, ...]."""
    return values.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))


def _put(old: Tensor, new: Tensor, rows: Tensor) -> None:
    """Writes the slots of `new` where the mask `rows` [S] says so."""
    old.copy_(torch.where(rows.reshape(-1, *[1] * (old.dim() - 1)), new, old))
