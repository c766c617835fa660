"""The area under the receiver operating characteristic, from ranks."""

from __future__ import annotations

import torch
from torch import Tensor


def auc(scores: Tensor, is_positive: Tensor) -> float:
    """The probability that a positive film's score is above a negative one's, ties counting half: scores [n], `is_positive` bool [n].

    Raises ValueError unless both classes are there.
    """
    positives = int(is_positive.sum())
    negatives = len(scores) - positives
    if not positives or not negatives:
        raise ValueError(f"area under the curve needs films of both classes: {positives} positive, {negatives} negative")
    _, place, counts = torch.unique(scores.double(), return_inverse=True, return_counts=True)
    ranks = counts.cumsum(0) - (counts - 1) / 2  # the mean rank of each value, from 1
    above = float(ranks[place[is_positive]].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)
