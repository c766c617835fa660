"""The area under the receiver operating characteristic, of tensors and for both classes only."""

from __future__ import annotations

from torch import Tensor

from engine.classify import roc


def auc(scores: Tensor, is_positive: Tensor) -> float:
    """The probability that a positive film's score is above a negative one's, ties counting half: scores [n], `is_positive` bool [n].

    Raises ValueError unless both classes are there.
    """
    positives = int(is_positive.sum())
    negatives = len(scores) - positives
    if not positives or not negatives:
        raise ValueError(f"area under the curve needs films of both classes: {positives} positive, {negatives} negative")
    return roc.auc(scores.detach().cpu().numpy(), is_positive.cpu().numpy())
