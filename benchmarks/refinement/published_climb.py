"""What class optimisation is measured against: algorithm 1 of Segal et al. 2021 as it stands there, one film after another."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn


class PublishedClimb:
    """Float32, eager, one film at a time: z <- z + alpha * gradient of the logit while the logit is under its goal.

    Generously: weights are frozen, the last look takes no gradient, and a step has the length and the gauge of ours, so that both take the
    same steps and only what a step costs differs.
    """

    def __init__(self, generator: nn.Module, classify: Callable[[Tensor], Tensor], project: Callable[[Tensor], Tensor]) -> None:
        """`generator`: codes [1, *shape] -> films; a copy of it in torch's own layout is used. `classify`: films -> the logit [1]."""
        self._generator = copy.deepcopy(generator).to(memory_format=torch.contiguous_format).requires_grad_(False).eval()
        self._classify, self._project = classify, project

    def climb(self, start: Tensor, goal: float, *, stride: float, steps: int) -> tuple[Tensor, int]:
        """From `start` [*shape] to the first code whose logit is `goal`, or on for `steps` steps: the code, and how many it took."""
        code, taken = start[None].clone(), 0
        while True:
            code.requires_grad_(True)
            logit = self._classify(self._generator(code))
            if logit.item() >= goal or taken == steps:
                return code.detach()[0], taken
            (gradient,) = torch.autograd.grad(logit.sum(), code)
            code = self._project(code.detach() + stride * gradient / gradient.square().mean().sqrt())
            taken += 1
