"""The best code of the film in each slot, and what its end is decided by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config import RefineConfig

LEAST_GAIN = 1e-4  # relative: what counts as an improvement when a plateau is looked for

REASONS = ("", "budget", "plateau", "target", "diverged")
_GOING, _BUDGET, _PLATEAU, _TARGET, _DIVERGED = range(5)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What one evaluation means for each slot [S]: positions in REASONS, 0 for who goes on, and what the others are to evaluate next.

    `takes_coarse`: the code of the level before, for the start was only weighed. `falls_back`: the start again, for that code was behind
    it. Everyone else: what the optimiser proposes.
    """

    verdict: Tensor
    takes_coarse: Tensor
    falls_back: Tensor


class Kept:
    """Tensors with one entry a slot; nothing here waits for the device.

    A film whose code is no longer its start, as a coarser level left it, is evaluated at its start first and at that code next, so both
    have been weighed by the same function: the level never falls behind the start, even where the coarser one misled it.
    """

    def __init__(self, like: Tensor, *, budget: int) -> None:
        """For codes shaped and placed as `like` [S, *shape] and a level of `budget` steps."""
        unknown = torch.full((len(like),), torch.inf, device=like.device)
        zeros = torch.zeros(len(like), dtype=torch.int32, device=like.device)
        self.latents = torch.zeros_like(like)
        self.loss, self.mse, self.loss_initial, self._milestone = (unknown.clone() for _ in range(4))
        self.steps, self._milestone_at, self._at, self._before = (zeros.clone() for _ in range(4))
        self._first = zeros.clone()  # the evaluation from which the descent goes on: 0, or 1 after a coarser level, 2 after a fall back
        self._is_over = torch.zeros(len(like), dtype=torch.bool, device=like.device)
        self._budget = budget

    def start(self, rows: Tensor, before: Tensor, is_over: Tensor) -> None:
        """The slots `rows` [k] get films whose codes are `before` [k] int32 steps away from their starts; nothing else is known of them.

        Those with `is_over` [k] diverged at a coarser level: start and code are weighed here, and they end, diverged.
        """
        self._is_over[rows] = is_over
        for state in (self.loss, self.mse, self.loss_initial, self._milestone):
            state[rows] = torch.inf
        for counter in (self.steps, self._milestone_at, self._at):
            counter[rows] = 0
        self._before[rows] = before
        self._first[rows] = (before > 0).to(torch.int32)

    def weigh(self, latents: Tensor, loss: Tensor, mse: Tensor, gradient: Tensor, active: Tensor, cfg: RefineConfig) -> Judged:
        """Keeps the codes [S, *shape] that are better than those kept and decides who ends, of the slots that are `active` [S]."""
        opens = active & (self._at == 0)
        is_candidate = loss.isfinite() & latents.isfinite().flatten(1).all(1)
        takes = opens | (active & is_candidate & (loss < self.loss))  # a start that is not finite stays: its film ends here
        self.latents = torch.where(takes.reshape(-1, *[1] * (latents.dim() - 1)), latents, self.latents)
        self.loss, self.mse = torch.where(takes, loss, self.loss), torch.where(takes, mse, self.mse)
        self.steps = torch.where(takes, torch.where(opens, 0, self._before + self._at - self._first), self.steps)
        self.loss_initial = torch.where(opens, loss, self.loss_initial)
        begins = active & (self._at <= self._first)  # what was known before the first step is no lack of gain
        gained = begins | (takes & (loss < self._milestone * (1 - LEAST_GAIN)))
        self._milestone = torch.where(gained, self.loss, self._milestone)
        self._milestone_at = torch.where(gained, self._at, self._milestone_at)

        verdict = torch.where(self._at - self._first >= self._budget, _BUDGET, _GOING)
        if cfg.patience:
            verdict = torch.where(self._at - self._milestone_at >= cfg.patience, _PLATEAU, verdict)
        if cfg.target_mse:
            verdict = torch.where(self.mse <= cfg.target_mse, _TARGET, verdict)
        verdict = torch.where(is_candidate & gradient.isfinite().flatten(1).all(1), verdict, _DIVERGED)
        verdict = torch.where(self._is_over & (self._at >= self._first), _DIVERGED, verdict)
        verdict = torch.where(active, verdict, _GOING)
        return self._go_on(verdict, active, takes)

    def _go_on(self, verdict: Tensor, active: Tensor, takes: Tensor) -> Judged:
        going = active & (verdict == _GOING)
        takes_coarse = going & (self._at < self._first)
        falls_back = going & (self._before > 0) & (self._at == self._first) & ~takes
        self._before = torch.where(falls_back, 0, self._before)  # the coarser level's steps lead nowhere
        self._first = torch.where(falls_back, 2, self._first)
        self._at = self._at + active.to(torch.int32)
        return Judged(verdict=verdict, takes_coarse=takes_coarse, falls_back=falls_back)

    def of(self, slot: int) -> tuple[Tensor, int, float, float]:
        """The kept code [*shape] of a slot, the steps that led to it from its start, the loss of the start and its own."""
        return self.latents[slot].clone(), int(self.steps[slot]), float(self.loss_initial[slot]), float(self.loss[slot])
