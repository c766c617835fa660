"""The prior of a Gaussian-mixture autoencoder: p(z) = 1/K sum_k N(z; mu_k, diag sigma_k^2), its means and variances learned."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from trainers import randomness
from trainers.losses.vae import log_normal

_ROUNDS = 50  # of k-means; a thousand codes settle in fewer


class GaussianMixture(nn.Module):
    """K components in d dimensions, of equal weight as in the course that Kumar and Triana 2024 cite.

    `means` [K, d], `log_variances` [K, d]. Fresh means are drawn from torch's generator with standard deviation 1, variances are 1.
    """

    def __init__(self, components: int, size: int) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.randn(components, size))
        self.log_variances = nn.Parameter(torch.zeros(components, size))

    def log_joint(self, z: Tensor) -> Tensor:
        """log p(y = k, z) of codes [N, d]: [N, K] float32."""
        z = z.float()[:, None]  # [N, 1, d]
        return log_normal(z, self.means, self.log_variances) - math.log(len(self.means))

    def log_density(self, z: Tensor) -> Tensor:
        """log p(z) of codes [N, d]: [N]."""
        return torch.logsumexp(self.log_joint(z), dim=1)

    def responsibilities(self, z: Tensor) -> Tensor:
        """p(y = k | z) of codes [N, d]: [N, K], rows sum to 1."""
        return torch.softmax(self.log_joint(z), dim=1)

    def draw(self, component: int, noise: Tensor) -> Tensor:
        """Codes [N, d] of one component, from standard normal noise [N, d]."""
        return self.means[component] + torch.exp(0.5 * self.log_variances[component]) * noise

    @torch.no_grad()
    def fit(self, codes: Tensor, *, seed: int) -> None:
        """Puts components where codes [M, d] lie: k-means from k-means++ (Arthur and Vassilvitskii 2007), and its clusters' variances.

        The same for the same codes and seed. A cluster of fewer than two codes gets the variance of all.
        """
        rows = codes.detach().cpu().double().numpy()
        centres = rows[_first_centres(rows, len(self.means), seed)]
        for _ in range(_ROUNDS):
            nearest = _distances(rows, centres).argmin(axis=1)
            moved = np.stack([rows[nearest == k].mean(axis=0) if (nearest == k).any() else centres[k] for k in range(len(centres))])
            if np.array_equal(moved, centres):
                break
            centres = moved
        whole = rows.var(axis=0)
        spreads = np.stack([rows[nearest == k].var(axis=0) if (nearest == k).sum() > 1 else whole for k in range(len(centres))])
        floor = 1e-3 * max(float(whole.mean()), 1e-6)
        self.means.copy_(torch.from_numpy(centres))
        self.log_variances.copy_(torch.from_numpy(np.log(np.maximum(spreads, floor))))


def _first_centres(rows: np.ndarray, count: int, seed: int) -> list[int]:
    """k-means++: each next centre is a row drawn with probability as its squared distance to the nearest centre so far."""
    draw = randomness.generator(seed, "mixture/centres", 0)
    chosen = [int(draw.integers(len(rows)))]
    nearest = _distances(rows, rows[chosen])[:, 0]
    while len(chosen) < count:
        total = nearest.sum()
        place = int(draw.choice(len(rows), p=nearest / total)) if total > 0 else int(draw.integers(len(rows)))
        chosen.append(place)
        nearest = np.minimum(nearest, _distances(rows, rows[[place]])[:, 0])
    return chosen


def _distances(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared distances [M, K]."""
    found: np.ndarray = np.maximum((rows**2).sum(axis=1)[:, None] - 2 * rows @ centres.T + (centres**2).sum(axis=1), 0.0)
    return found
