"""The sigmoid cross-entropy losses of a GAN (Goodfellow et al. 2014), with the generator's in the form that does not saturate."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def discriminator_loss(on_real: Tensor, on_fake: Tensor) -> dict[str, Tensor]:
    """What the discriminator minimises, from its scores s [N, places] on real and on made films, with D = sigmoid(s): scalars.

    "loss" = - mean log D(x) - mean log(1 - D(G(z))), equation 1 of the paper with its sign turned; means over films and places.
    `on_real` and `on_fake` are the mean probabilities D.
    """
    loss = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()  # -log sigmoid(s) = softplus(-s), finite for any s
    return {"loss": loss, "on_real": on_real.sigmoid().mean(), "on_fake": on_fake.sigmoid().mean()}


def generator_loss(on_fake: Tensor) -> dict[str, Tensor]:
    """What the generator minimises, from the scores [N, places] of its films: "loss" = - mean log D(G(z)) (end of section 3)."""
    return {"loss": F.softplus(-on_fake).mean()}
