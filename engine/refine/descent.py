"""Refinement: better codes by descent on the summed loss, every image with its own state, best code and reason to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config import RefineConfig
from engine.records import LatentBatch, PixelBatch
from engine.refine.objective import Objective, check_loss
from engine.refine.optimisers import PerImageAdam

LEAST_GAIN = 1e-4  # relative: what counts as an improvement when a plateau is looked for

_REASONS = ("", "budget", "plateau", "target", "diverged")
_GOING, _BUDGET, _PLATEAU, _TARGET, _DIVERGED = range(5)


def refine(
    generate: Callable[[Tensor], Tensor],
    project: Callable[[Tensor], Tensor],
    start: LatentBatch,
    images: PixelBatch,
    cfg: RefineConfig,
) -> LatentBatch:
    """The best codes that `cfg.steps` steps of Adam find for `images.pixels`, on the device of `start.latents`.

    `generate` maps codes [n, *shape] to pixels [n, 1, R, R] in [-1, 1], n at most N, is differentiable and does not mix images;
    `project` puts codes on the gauge. With `cfg.steps` 0 the result is `start` itself.

    The start is candidate 0 and is not touched; the kept code is the first one with the least loss, and `loss` is the loss of exactly
    that code. So a result is never worse than its start, and does not depend on the other images of the batch (up to rounding).
    `stop` says why an image ended: "budget"; "target": the kept code has an MSE of `target_mse` or less, in [0, 1] units; "plateau":
    `patience` steps without a gain of LEAST_GAIN; "diverged": its loss, gradient or code stopped being finite. A diverged image keeps
    its best finite code; where the start itself was not finite, `steps` is 0, and `latents` and `loss` are those of the start.
    Raises ConfigError for a loss that this version cannot compute.
    """
    check_loss(cfg.loss, target_mse=cfg.target_mse)
    if cfg.steps == 0:
        return start
    with torch.inference_mode(False):  # tensors made in inference mode can never take part in a gradient
        first = start.latents.detach().float().clone()
        objective = Objective.for_targets(cfg.loss, images.pixels.to(first.device))
        return _descend(generate, project, first, objective, cfg)


def _descend(
    generate: Callable[[Tensor], Tensor],
    project: Callable[[Tensor], Tensor],
    first: Tensor,
    objective: Objective,
    cfg: RefineConfig,
) -> LatentBatch:
    kept = _Kept.of(first)
    adam = PerImageAdam(first, lr=cfg.lr)
    latents, running = first, torch.arange(len(first), device=first.device)  # the images still going, as rows of the batch
    for step in range(cfg.steps + 1):
        if not len(running):
            break
        last = step == cfg.steps
        found = _evaluate(generate, objective, latents, with_gradient=not last)
        kept.offer(running, step, latents, found)
        verdict = kept.verdict(running, step, found, cfg, last=last)
        going = verdict == _GOING
        if not going.all():
            kept.reasons[running] = verdict
            latents, running, gradient = latents[going], running[going], found.gradient[going]
            objective = objective.rows(going)
            adam.keep(going)
        else:
            gradient = found.gradient
        if len(running):
            latents = project(adam.step(latents, gradient))
    return kept.batch()


@dataclass(frozen=True)
class _Found:
    """What one evaluation of n codes found: loss [n], MSE [n] (NaN without that term), gradient [n, *shape], and what is finite [n]."""

    loss: Tensor
    mse: Tensor
    gradient: Tensor
    is_candidate: Tensor  # code and loss are finite
    is_finite: Tensor  # the gradient is, too


def _evaluate(generate: Callable[[Tensor], Tensor], objective: Objective, latents: Tensor, *, with_gradient: bool) -> _Found:
    latents = latents.detach().requires_grad_(with_gradient)
    with torch.set_grad_enabled(with_gradient):
        loss, terms = objective(generate(latents))
    # the sum may well be NaN: its gradient is 1 for each loss all the same, so nothing passes from one image to another
    gradient = torch.autograd.grad(loss.sum(), latents)[0] if with_gradient else torch.zeros_like(latents)
    latents, loss = latents.detach(), loss.detach()
    is_candidate = loss.isfinite() & latents.isfinite().flatten(1).all(1)
    return _Found(
        loss=loss,
        mse=terms.get("mse", torch.full_like(loss, torch.nan)),
        gradient=gradient,
        is_candidate=is_candidate,
        is_finite=is_candidate & gradient.isfinite().flatten(1).all(1),
    )


@dataclass
class _Kept:
    """The best code of every image so far, and what its stop is decided by. Everything has N entries."""

    latents: Tensor
    steps: Tensor
    loss_initial: Tensor
    loss: Tensor
    mse: Tensor
    milestone: Tensor  # the last loss that was a gain of LEAST_GAIN over the one before
    milestone_step: Tensor
    reasons: Tensor

    @classmethod
    def of(cls, first: Tensor) -> _Kept:
        unknown = torch.full((len(first),), torch.inf, device=first.device)
        zeros = torch.zeros(len(first), dtype=torch.int32, device=first.device)
        return cls(first.clone(), zeros, unknown, unknown.clone(), unknown.clone(), unknown.clone(), zeros.clone(), zeros.clone())

    def offer(self, running: Tensor, step: int, latents: Tensor, found: _Found) -> None:
        """Takes the codes [n, *shape] of the images `running` that are better than those kept; at step 0 all, whatever they are."""
        if step == 0:
            self.loss_initial = found.loss.clone()
            self.loss = found.loss.clone()  # a start that is not finite stays: its image ends here
            self.mse = found.mse.clone()
            self.milestone = found.loss.clone()
            return
        better = found.is_candidate & (found.loss < self.loss[running])
        rows = running[better]
        self.latents[rows] = latents[better]
        self.loss[rows], self.mse[rows] = found.loss[better], found.mse[better]
        self.steps[rows] = step
        gained = found.is_candidate & (found.loss < self.milestone[running] * (1 - LEAST_GAIN))
        self.milestone[running[gained]] = found.loss[gained]
        self.milestone_step[running[gained]] = step

    def verdict(self, running: Tensor, step: int, found: _Found, cfg: RefineConfig, *, last: bool) -> Tensor:
        """Which of the images `running` stop, and why: [n] of positions in _REASONS. The gravest reason wins."""
        verdict = torch.full_like(self.reasons[running], _BUDGET if last else _GOING)
        if cfg.patience:
            verdict[step - self.milestone_step[running] >= cfg.patience] = _PLATEAU
        if cfg.target_mse:
            verdict[self.mse[running] <= cfg.target_mse] = _TARGET
        verdict[~found.is_finite] = _DIVERGED
        return verdict

    def batch(self) -> LatentBatch:
        """The result, row for row as it came in."""
        stop = [_REASONS[reason] for reason in self.reasons.tolist()]
        return LatentBatch(latents=self.latents, steps=self.steps, loss_initial=self.loss_initial, loss=self.loss, stop=stop)
