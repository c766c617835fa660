"""How well scores tell films with a label from films without: areas under curves, their intervals, and where to draw the line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Values = np.ndarray[Any, np.dtype[np.float64]]
Array = np.ndarray[Any, Any]

_NUMBERS_AT_ONCE = 2**22  # of draws in memory


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with the percentile limits of its bootstrap; NaN where films of both kinds are missing."""

    value: float
    low: float
    high: float


def auc(scores: Array, marks: Array) -> float:
    """The area under the ROC curve of scores [n] for marks [n] (0, 1): how often a film with the label scores higher, ties counting half.

    NaN where all marks are equal. Raises ValueError for scores that are not finite.
    """
    return float(_areas(*_groups(scores, marks), np.ones((1, len(scores))))[0])


def average_precision(scores: Array, marks: Array) -> float:
    """The area under the curve of precision against sensitivity: sum of (R_n - R_(n-1)) P_n over all cuts n, from the highest score down.

    Scores [n], marks [n] (0, 1); films of equal scores are above or below a cut together. NaN where all marks are equal.
    """
    _, with_label, without = _counted(scores, marks)
    if not with_label.sum() or not without.sum():
        return float("nan")
    true, false = with_label[::-1].cumsum(), without[::-1].cumsum()
    return float((with_label[::-1] * true / (true + false)).sum() / with_label.sum())


def youden_threshold(scores: Array, marks: Array) -> float | None:
    """The score from which on a film counts as marked: it maximises J = sensitivity + specificity - 1 (Youden 1950).

    Halfway between two neighbouring scores; of equally good ones the highest. None where all marks are equal.
    """
    return _best_cut(scores, marks, lambda sensitivity, specificity: sensitivity + specificity)


def balanced_threshold(scores: Array, marks: Array) -> float | None:
    """As `youden_threshold`, but it minimises |sensitivity - specificity| (Tang et al. 2021, section 5.2)."""
    return _best_cut(scores, marks, lambda sensitivity, specificity: -abs(sensitivity - specificity))


def rates(scores: Array, marks: Array, threshold: float) -> dict[str, float]:
    """Sensitivity, specificity, precision and F1 by name, where films of scores [n] from `threshold` on count as marked.

    NaN where there is nothing to divide by: no film with the label, none without, or none that counts as marked.
    """
    said, has = np.asarray(scores, dtype=np.float64) >= threshold, np.asarray(marks) > 0.5
    true, false, missed, spared = (int(found.sum()) for found in (said & has, said & ~has, ~said & has, ~said & ~has))
    return {
        "sensitivity": _share(true, true + missed),
        "specificity": _share(spared, spared + false),
        "precision": _share(true, true + false),
        "f1": _share(2 * true, 2 * true + false + missed),
    }


def bootstrap_auc(scores: Array, marks: Array, *, resamples: int, seed: int, level: float = 0.95) -> tuple[list[Interval], Interval]:
    """AUC of scores [n, labels] for marks [n, labels], label by label, and their mean, each with its percentile interval.

    Draws are those of `bootstrap_areas`; the mean is over the labels that have an AUC.
    """
    areas = bootstrap_areas(scores, marks, resamples=resamples, seed=seed)
    return [interval(column, level) for column in areas.T], interval(mean_areas(areas), level)


def bootstrap_areas(scores: Array, marks: Array, *, resamples: int, seed: int, groups: Array | None = None) -> Values:
    """AUC of scores [n, labels] for marks [n, labels] of the films as they are, then of each draw: [1 + resamples, labels].

    Films are drawn n at a time with replacement, the same films for all labels, from `seed` alone: other scores of the same films meet the
    same draws, so that two such tables may be subtracted. `groups` [n], 0 to the number of groups - 1: films of one group (a patient) are
    drawn together, as many groups as there are. NaN for a label of which the films, or those of a draw, are all with it or all without.
    """
    n, labels = marks.shape
    draw = np.random.default_rng(seed)
    of_film = np.arange(n) if groups is None else np.asarray(groups)
    num_groups = int(of_film.max()) + 1 if n else 0
    ranked = [_groups(scores[:, c], marks[:, c]) for c in range(labels)]
    rows = [np.stack([_areas(*group, np.ones((1, n))) for group in ranked], axis=1)]  # the films as they are
    at_once = max(1, _NUMBERS_AT_ONCE // max(n, 1))
    for first in range(0, resamples if n else 0, at_once):
        count = min(at_once, resamples - first)
        drawn = np.stack([np.bincount(draw.integers(0, num_groups, num_groups), minlength=num_groups) for _ in range(count)])
        rows.append(np.stack([_areas(*group, drawn[:, of_film]) for group in ranked], axis=1))
    return np.concatenate(rows)


def mean_areas(areas: Values) -> Values:
    """Of `bootstrap_areas` [1 + resamples, labels], the mean over the labels that have an AUC: [1 + resamples]."""
    known = ~np.isnan(areas[0])
    return np.asarray(areas[:, known].mean(axis=1)) if known.any() else np.full(len(areas), np.nan)


def interval(drawn: Values, level: float = 0.95) -> Interval:
    """The first of `drawn` [1 + resamples], which is the films' own, between percentiles of the others; draws that are NaN are left out."""
    others = drawn[1:][~np.isnan(drawn[1:])]
    tail = 50 * (1 - level)
    low, high = np.percentile(others, [tail, 100 - tail]) if len(others) and not np.isnan(drawn[0]) else (np.nan, np.nan)
    return Interval(value=float(drawn[0]), low=float(low), high=float(high))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _counted(scores: Array, marks: Array) -> tuple[Values, Array, Array]:
    """The different scores, ascending, and how many films with the label and without it have each."""
    order, group, positive = _groups(scores, marks)
    levels = np.unique(np.asarray(scores, dtype=np.float64)[order])
    return levels, np.bincount(group, positive, len(levels)), np.bincount(group, ~positive, len(levels))


def _best_cut(scores: Array, marks: Array, worth: Callable[[Values, Values], Values]) -> float | None:
    """The cut of the greatest worth(sensitivity, specificity), cut below each score; both in whole numbers, so that ties are ties."""
    levels, with_label, without = _counted(scores, marks)
    pairs = with_label.sum() * without.sum()
    if not pairs:
        return None
    sensitivity = np.cumsum(with_label[::-1])[::-1] * without.sum()
    specificity = pairs - np.cumsum(without[::-1])[::-1] * with_label.sum()
    worths = worth(sensitivity, specificity)
    best = int(len(worths) - 1 - np.argmax(worths[::-1]))
    return float(levels[best] if best == 0 else (levels[best] + levels[best - 1]) / 2)


def _groups(scores: Array, marks: Array) -> tuple[Array, Array, Array]:
    """Order of the films by score, the number of each one's group of equal scores, and whether it has the label, in that order."""
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite")
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    group = np.concatenate([[0], np.cumsum(ranked[1:] != ranked[:-1])]) if len(ranked) else np.empty(0, dtype=np.int64)
    return order, group.astype(np.int64), np.asarray(marks)[order] > 0.5


def _areas(order: Array, group: Array, positive: Array, counts: Array) -> Values:
    """AUC where film i counts counts[b, i] times: [b]; NaN without films of both kinds."""
    if not len(order):
        return np.full(len(counts), np.nan)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(group)) + 1])
    ranked = counts[:, order].astype(np.float64)
    with_label = np.add.reduceat(ranked * positive, starts, axis=1)
    without = np.add.reduceat(ranked * ~positive, starts, axis=1)
    below = np.cumsum(without, axis=1) - 0.5 * without
    pairs = with_label.sum(1) * without.sum(1)
    areas: Values = np.divide((with_label * below).sum(1), pairs, out=np.full(len(counts), np.nan), where=pairs > 0)
    return areas
