"""Weighted cross-entropy of several labels: equation 3 of Segal et al. 2021, after Guendel et al. 2019."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.errors import ConfigError


def class_weights(counts: Sequence[tuple[int, int]]) -> Tensor:
    """Films with and without each label, (N_p, N_n) -> w_P and w_N as rows of [2, labels] float32: (N_p + N_n) / N_p and over N_n.

    Each label's films with it then weigh as much together as those without. Raises ConfigError where one kind has no film.
    """
    for place, (present, absent) in enumerate(counts):
        if present < 1 or absent < 1:
            raise ConfigError(f"label {place} needs films with it and without it to be weighted: {present}, {absent}")
    both = torch.tensor(counts, dtype=torch.float64).T  # [2, labels]
    return (both.sum(0) / both).float()


def weighted_cross_entropy(logits: Tensor, marks: Tensor, weights: Tensor) -> Tensor:
    """Logits and marks [N, labels] (1: the label is there), weights [2, labels] of `class_weights` -> [N] float32, one value a film.

    Minus equation 3, whose sign is that of a likelihood, with y^ the logistic function of the logit; the mean over the labels.
    """
    if logits.shape != marks.shape:
        raise ValueError(f"logits and labels differ in shape: {tuple(logits.shape)} and {tuple(marks.shape)}")
    x = logits.float()
    present, absent = weights[0] * marks * F.logsigmoid(x), weights[1] * (1 - marks) * F.logsigmoid(-x)
    return -(present + absent).mean(dim=1)
