"""Wasserstein losses with gradient penalty (Gulrajani et al. 2017, equation 3) and drift (Karras et al. 2018, appendix A.1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainers.nets.double_backward import without_weight_gradients

Critic = Callable[[Tensor], Tensor]
"""Films [N, 1, R, R] -> scores [N] float32."""


def critic_loss(
    critic: Critic, real: Tensor, fake: Tensor, mix: Tensor, *, gp_weight: float = 10.0, drift: float = 1e-3, slope: float = 1.0
) -> dict[str, Tensor]:
    """What the critic minimises on real and made films [N, 1, R, R]: scalars, means over films.

    "loss" = mean D(fake) - mean D(real) + gp_weight * "penalty" + drift * mean D(real)^2, where the penalty is the mean of
    (|grad D(x)| / slope - 1)^2 at x = mix * real + (1 - mix) * fake, with `mix` [N, 1, 1, 1] uniform in [0, 1).
    """
    on_real, on_fake = critic(torch.cat([real, fake])).chunk(2)
    mixed = fake + mix * (real - fake)
    norms = gradient_norms(critic, mixed) / slope
    penalty = (norms - 1).square().mean()
    distance = on_real.mean() - on_fake.mean()
    loss = gp_weight * penalty - distance + drift * on_real.square().mean()
    return {"loss": loss, "distance": distance, "penalty": penalty, "norm": norms.mean(), "on_real": on_real.mean()}


def generator_loss(critic: Critic, fake: Tensor) -> dict[str, Tensor]:
    """What the generator minimises: "loss" = - mean D(fake)."""
    return {"loss": -critic(fake).mean()}


def gradient_norms(critic: Critic, films: Tensor) -> Tensor:
    """The norm [N] of the critic's gradient at each of the films, in the films' own type, differentiable in its weights."""
    films = films.detach().requires_grad_()
    scores = critic(films)
    with without_weight_gradients():
        (gradient,) = torch.autograd.grad(scores.sum(), films, create_graph=True)
    norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return norms
