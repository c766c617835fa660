"""L-BFGS whose state belongs to the slot: every evaluation is a trial of its film's own line search, and brings a gradient with it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ARMIJO = 1e-4  # the share of the promised decrease that a trial must bring
LEAST_CURVATURE = 1e-4  # least cosine between a displacement and its change of gradient
SHORTEST, LONGEST = 0.1, 0.5  # what a rejected trial's length may be multiplied by
LOST = 1e-3  # of a direction: where not even so short a step of it helps, the history is forgotten


class SlotLbfgs:
    """Limited-memory BFGS (Nocedal 1980; Nocedal and Wright 2006, algorithms 7.4 and 3.1) on S slots of codes.

    A film stands at its base, the last code that was accepted. Each call judges the trial that was just evaluated: one with enough decrease
    becomes the base, its displacement and change of gradient join the film's history, and the next trial is a full quasi-Newton step.
    Otherwise the base stays and the next trial is a shorter step in the same direction. The first step has the length of Adam's: `lr` a
    coordinate. A trial that is not finite is rejected like any other. Where nothing helps, the film starts afresh from its base.

    Displacements are taken between codes as they came back from the gauge. On a sphere that is exact: the loss ignores the length of a
    code, so codes on it and gradients there are samples of one function of all space, and that function is what is modelled.

    State is written in place, shapes never change and no step waits for the device, so a step can be part of a CUDA graph. Slots are
    independent to the bit.
    """

    def __init__(self, like: Tensor, *, lr: float, history: int = 20, metric: Tensor | None = None) -> None:
        """Fresh state for codes shaped and placed as `like` [S, *shape] float32.

        metric [k, d] float32, with d entries a code: M of `networks/latent_metric.py`; the initial inverse Hessian is a multiple of
        1 - M'M, or of 1.
        """
        if history < 1:
            raise ValueError(f"history must be 1 or more: {history}")
        slots, size = len(like), math.prod(like.shape[1:])
        if metric is not None and (metric.ndim != 2 or metric.shape[1] != size):
            raise ValueError(f"metric must be [k, {size}]: {list(metric.shape)}")

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float32, device=like.device)

        self.metric = None if metric is None else metric.to(device=like.device, dtype=torch.float32).contiguous()
        self.first_length = lr * math.sqrt(size)
        self.moves = zeros(history, slots, size)  # displacements between codes, the oldest first
        self.changes = zeros(history, slots, size)  # the changes of gradient along them
        self.weights = zeros(history, slots)  # 1 / (move . change); 0 where there is no pair, which then takes no part
        self.scale = zeros(slots)  # of the initial inverse Hessian; 0 until there is a pair
        self.base, self.base_gradient, self.direction = zeros(slots, size), zeros(slots, size), zeros(slots, size)
        self.base_loss = torch.full_like(self.scale, torch.inf)  # infinite: the slot's film has not been evaluated yet
        self.length = zeros(slots)  # of the trial, in directions

    def start(self, rows: Tensor) -> None:
        """The slots `rows` [k], by number, get new films: nothing of the former ones is left."""
        for history in (self.moves, self.changes, self.weights):
            history.index_fill_(1, rows, 0)
        for state in (self.scale, self.base, self.base_gradient, self.direction, self.length):
            state.index_fill_(0, rows, 0)
        self.base_loss.index_fill_(0, rows, torch.inf)

    @torch.no_grad()
    def step(self, latents: Tensor, loss: Tensor, gradient: Tensor, active: Tensor) -> Tensor:
        """The next trials, [S, *shape]; slots where `active` [S] is False come back as they are. Arguments are not written to."""
        codes, slope = latents.flatten(1), gradient.flatten(1)
        move, change = codes - self.base, slope - self.base_gradient
        is_finite = loss.isfinite() & slope.isfinite().all(1)
        is_first = self.base_loss.isinf()
        is_enough = loss <= self.base_loss + ARMIJO * _dot(self.base_gradient, move)
        accepted = active & is_finite & (is_first | is_enough)
        shorter = self._shorter(loss, is_finite)

        self._remember(move, change, accepted & ~is_first)
        _put(self.base, codes, accepted)
        _put(self.base_gradient, slope, accepted)
        _put(self.base_loss, loss, accepted)
        is_lost = active & ~accepted & (shorter < LOST)
        self.weights.masked_fill_(is_lost, 0)
        self.scale.masked_fill_(is_lost, 0)
        _put(self.direction, self._quasi_newton(), accepted | is_lost)
        _put(self.length, torch.where(accepted | is_lost, torch.ones_like(shorter), shorter), active)
        trial = self.base + self.length[:, None] * self.direction
        return torch.where(active[:, None], trial, codes).reshape(latents.shape)

    def _shorter(self, loss: Tensor, is_finite: Tensor) -> Tensor:
        """Lengths for rejected trials [S]: where the parabola through the base, its slope and the trial has its minimum, within limits."""
        promised = self.length * _dot(self.base_gradient, self.direction)
        minimum = -promised / (2 * (loss - self.base_loss - promised)).clamp_min(torch.finfo(torch.float32).tiny)
        return self.length * torch.where(is_finite, minimum.clamp(SHORTEST, LONGEST), SHORTEST)

    def _remember(self, move: Tensor, change: Tensor, rows: Tensor) -> None:
        """Adds a pair [S, d] to the histories of the slots in `rows` where the loss curves upwards along it; the oldest pair goes."""
        product = _dot(move, change)
        weight, scale = 1 / product, product / _dot(change, self._softened(change))
        curves = product > LEAST_CURVATURE * _dot(move, move).sqrt() * _dot(change, change).sqrt()
        kept = rows & curves & weight.isfinite() & scale.isfinite()
        for history, new in ((self.moves, move), (self.changes, change), (self.weights, weight)):
            mask = kept if new.ndim == 1 else kept[:, None]
            history.copy_(torch.where(mask, torch.cat([history[1:], new[None]]), history))
        _put(self.scale, scale, kept)

    def _quasi_newton(self) -> Tensor:
        """Minus the inverse Hessian's estimate times the base's gradient [S, d], by the two-loop recursion."""
        pairs = list(zip(self.moves, self.changes, self.weights, strict=True))
        rest, shares = self.base_gradient, []
        for move, change, weight in reversed(pairs):
            share = weight * _dot(move, rest)
            rest = rest - share[:, None] * change
            shares.append(share)
        rest = self._softened(rest)
        norm = _dot(rest, rest).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        steps = torch.where(self.scale > 0, self.scale, self.first_length / norm)[:, None] * rest
        for (move, change, weight), share in zip(pairs, reversed(shares), strict=True):
            steps = steps + (share - weight * _dot(change, steps))[:, None] * move
        return -steps

    def _softened(self, gradient: Tensor) -> Tensor:
        """[S, d] times 1 - M'M: less along the directions that are stiff for all films. One product a slot, all of the same shape."""
        if self.metric is None:
            return gradient
        stiff = self.metric.expand(len(gradient), -1, -1)
        return gradient - torch.bmm(stiff.mT, torch.bmm(stiff, gradient[:, :, None]))[..., 0]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Row by row: [S, d] twice -> [S]. Not a matrix product, whose rounding may depend on where a row stands."""
    return (a * b).sum(-1)


def _put(old: Tensor, new: Tensor, rows: Tensor) -> None:
    """Writes the slots of `new` where the mask `rows` [S] says so."""
    old.copy_(torch.where(rows if old.ndim == 1 else rows[:, None], new, old))
