"""The non-saturating logistic losses (Goodfellow et al. 2014) with R1 (Mescheder et al. 2018, equation 9), as StyleGAN is trained."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.losses.wgan_gp import Critic
from trainers.nets.double_backward import without_weight_gradients


def discriminator_loss(discriminator: Critic, real: Tensor, fake: Tensor, *, gamma: float = 10.0) -> dict[str, Tensor]:
    """What the discriminator minimises on real and made films [N, 1, R, R]: scalars, means over films.

    "loss" = mean softplus(D(fake)) + mean softplus(-D(real)) + gamma / 2 * "penalty", where the penalty is the mean of |grad D(x)|^2, in
    the films' own units, at the real films. One pass over them gives both their scores and their slope.
    """
    films = real.detach().requires_grad_()
    on_real, on_fake = discriminator(films), discriminator(fake)
    with without_weight_gradients():
        (gradient,) = torch.autograd.grad(on_real.sum(), films, create_graph=True)
    penalty = gradient.square().sum(dim=(1, 2, 3)).mean()
    logistic = F.softplus(on_fake).mean() + F.softplus(-on_real).mean()
    return {
        "loss": logistic + gamma / 2 * penalty,
        "logistic": logistic,
        "penalty": penalty,
        "on_real": on_real.mean(),
        "on_fake": on_fake.mean(),
    }


def generator_loss(discriminator: Critic, fake: Tensor) -> dict[str, Tensor]:
    """What the generator minimises: "loss" = mean softplus(-D(fake))."""
    return {"loss": F.softplus(-discriminator(fake)).mean()}
