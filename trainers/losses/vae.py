"""Terms of the evidence lower bound (Kingma and Welling 2014; Kumar and Triana 2024, section 3.1), as they are minimised."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

REDUCTIONS = ("sum", "mean")

LogDensity = Callable[[Tensor], Tensor]
"""Codes [N, d] -> log p(z) [N]."""


def reconstruction(made: Tensor, films: Tensor, *, over: str) -> Tensor:
    """Squared error of films [N, 1, R, R] in [-1, 1], in [0, 1] units: [N] float32, its sum or mean `over` the pixels of a film.

    The sum is -log p(x|z) of a Gaussian of variance 1/2 but for a constant; the mean is that divided by the number of pixels.
    """
    error = ((made.float() - films.float()) / 2).square().flatten(1)
    return error.sum(dim=1) if over == "sum" else error.mean(dim=1)


def sample(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """z = mu + sigma * noise (reparametrised), all [N, d]."""
    return mean + torch.exp(0.5 * log_variance) * noise


def kl_to_standard(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, I)) of rows [N, d] -> [N]: -1/2 sum_j (1 + log sigma_j^2 - mu_j^2 - sigma_j^2), section 3.1."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(dim=-1)


def log_normal(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log N(z; mu, diag sigma^2), summed over the last dimension; shapes broadcast."""
    squares = (z - mean).square() * torch.exp(-log_variance)
    return -0.5 * (math.log(2 * math.pi) + log_variance + squares).sum(dim=-1)


def kl_by_sample(z: Tensor, mean: Tensor, log_variance: Tensor, log_prior: LogDensity) -> Tensor:
    """log q(z|x) - log p(z) [N] at one z [N, d] drawn from q = N(mu, sigma^2): KL(q || p) in the mean, for any prior.

    A mixture of Gaussians has no KL in closed form; this is the estimate of the course that the paper takes its losses from.
    """
    return log_normal(z, mean, log_variance) - log_prior(z)


def label_loss(logits: Tensor, marks: Tensor) -> Tensor:
    """Cross-entropy of labels [N, labels] (0 and 1) with logits of the same shape, summed over labels: [N]."""
    return F.binary_cross_entropy_with_logits(logits.float(), marks, reduction="none").sum(dim=1)
