"""What Tang et al. 2021 (DGM) minimise, equations 1 to 7: each term is a mean over images, and over an image's pixels or patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Scores = Sequence[Tensor]
"""Maps of scores [N, 1, r, r], one a scale."""


def adversarial(on_made: Scores) -> Tensor:
    """Equation 1, what the normal films y' [N, 1, R, R] are judged by: 1/2 E[(D(y') - 1)^2]; scales add up, as in Wang et al. 2018."""
    return _squares(on_made, 1)


def discrimination(on_made: Scores, on_real: Scores) -> Tensor:
    """Equation 7, what the discriminator minimises: 1/2 E[D(y')^2] + 1/2 E[(D(y) - 1)^2]; scales add up. y: normal films."""
    return _squares(on_made, 0) + _squares(on_real, 1)


def recognition(on_abnormal: Scores) -> Tensor:
    """Beyond the paper: 1/2 E[D(x)^2] on real abnormal films x, so that the discriminator knows disease by more than what is made."""
    return _squares(on_abnormal, 0)


def reconstruction(made: Tensor, films: Tensor) -> Tensor:
    """Equations 2 and 3: the L1 distance of [N, 1, R, R] twice, as the mean over pixels and images."""
    return (made.float() - films).abs().mean()


def blankness(residue: Tensor, is_normal: Tensor) -> Tensor:
    """Equation 4: the mean of |a| over pixels for normal films, 0 for others; a [N, 1, R, R], `is_normal` [N] of 0 and 1."""
    return (residue.float().abs().mean(dim=(1, 2, 3)) * is_normal).mean()


def total_variation(films: Tensor, *, reduction: Literal["sum", "mean"] | str = "mean") -> Tensor:
    """Equation 5: sum of |y'(i+1, j) - y'(i, j)| + |y'(i, j+1) - y'(i, j)| over pixels of [N, 1, R, R], the mean over images.

    "mean" divides the sum by the number of pixels, as the L1 norms of equations 2 to 4 are here. The paper leaves both open; with a sum in
    one and means in the others, weights of 1 and 10 would leave nothing but the sum to be minimised.
    """
    films = films.float()
    down, right = films.diff(dim=2).abs().sum(dim=(1, 2, 3)), films.diff(dim=3).abs().sum(dim=(1, 2, 3))
    pixels = films[0].numel() if reduction == "mean" else 1
    return (down + right).mean() / pixels


def classification(logits: Tensor, is_abnormal: Tensor) -> Tensor:
    """Binary cross-entropy of section 4's head: logits [N] against [N] of 0 and 1."""
    return F.binary_cross_entropy_with_logits(logits.float(), is_abnormal)


def _squares(scores: Scores, target: float) -> Tensor:
    found = [0.5 * (score.float() - target).square().mean() for score in scores]
    return sum(found[1:], found[0])
