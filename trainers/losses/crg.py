"""Terms of the two losses of the cyclic reverse generator (Saboo et al. 2020, section 2), as they are minimised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.encode.gauge import into_range
from kernels.mse_ssim.op import mse_ssim


def code_distance(w: Tensor, found: Tensor) -> Tensor:
    """L1(w, w^): the mean |w - w^| over all entries. w [N, 1, C] or [N, L, C], found [N, L, C] or [N, 1, C] -> scalar, float32.

    Where one has a w for each layer and the other a single one, that one stands for each layer. Sum or mean: the paper does not say.
    """
    return (w.float() - found.float()).abs().mean()


def film_distances(made: Tensor, films: Tensor) -> tuple[Tensor, Tensor]:
    """L2(x, x^) and the term of structural similarity, means over films [N, 1, R, R] in [-1, 1]: two scalars, float32.

    The first is the mean squared error in [0, 1] units; sum or mean, and the range of x, the paper does not say. The second is
    1 - SSIM(x, x^): the paper writes SSIM(x, x^) as a loss to be minimised, by which equal films would be the worst. SSIM is as in
    `engine.metrics`. Films that were made count as clamped to [-1, 1], with the gradient of no clamp. Raises ValueError under 11 pixels.
    """
    with torch.autocast(made.device.type, enabled=False):
        error, similarity = mse_ssim(into_range(made.float()) / 2 + 0.5, films.detach().float() / 2 + 0.5)
    return error.mean(), 1 - similarity.mean()


def content_distance(maps: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """Sum over layers i of ||f_i - g_i||_1 / N_i, N_i the size of a film's feature map: mean over films, a scalar, float32.

    `maps` and `others` have the features [N, C_i, r_i, r_i] of as many layers. Differentiable in both.
    """
    terms = [(ours.float() - theirs.float()).abs().mean() for ours, theirs in zip(maps, others, strict=True)]
    return torch.stack(terms).sum()
