"""The least-squares losses of a GAN: Kumar and Triana 2024, section 3.2, after Mao et al. 2016, equation 9."""

from __future__ import annotations

from torch import Tensor


def discriminator_loss(on_real: Tensor, on_fake: Tensor) -> dict[str, Tensor]:
    """What the discriminator minimises, from its scores [N, places] on real and on made films: scalars.

    "loss" = 1/2 mean (D(x) - 1)^2 + 1/2 mean D(G(z))^2. Where a film has several scores, each is pulled to its target: the mean is over
    films and places, and not of the square of a film's mean score. As every film has as many places, it is a mean over films.
    """
    loss = ((on_real - 1).square().mean() + on_fake.square().mean()) / 2
    return {"loss": loss, "on_real": on_real.mean(), "on_fake": on_fake.mean()}


def generator_loss(on_fake: Tensor) -> dict[str, Tensor]:
    """What the generator minimises, from the scores [N, places] of its films: "loss" = 1/2 mean (D(G(z)) - 1)^2, over films and places."""
    return {"loss": (on_fake - 1).square().mean() / 2}
