"""Directions in a space of codes along which films gain a finding: how each is found, and how far it tells films apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.classify.roc import auc
from engine.errors import ConfigError

Array = np.ndarray[Any, np.dtype[np.floating[Any]]]
Marks = np.ndarray[Any, np.dtype[np.bool_]]

FOLDS = 5
_SVM_C = 0.1  # of 1e-4 to 1 the one that told most of 500 phantoms apart in 24 numbers; in 256 numbers and 120 films it hardly matters


@dataclass(frozen=True, kw_only=True)
class DirectionFigures:
    """What a direction is worth on films that it was not found on: `FOLDS` times, on a fifth of them by a direction from the others.

    `separation`: the distance of the two classes' means along it, in units of the mean of their standard deviations (Saboo et al. 2020,
    section 3). `accuracy`: mean of sensitivity and specificity, cut halfway between the means of the films it was found on. `auc`: area
    under the ROC curve. `separation_in_sample`: of the direction that is kept, on all the films it was found on, as Saboo reports it; with
    about as many films as a code has numbers this is large for any labels.
    """

    films_with: int
    films_without: int
    separation: float
    separation_in_sample: float
    accuracy: float
    auc: float


def svm(values: Array, marks: Marks) -> Array:
    """The normal of a linear support vector machine (Weber et al. 2022, 3.3) on standardised codes, classes weighing alike: [d]."""
    from sklearn.svm import LinearSVC

    centre, spread = values.mean(axis=0), _spread(values)
    machine = LinearSVC(C=_SVM_C, class_weight="balanced", dual="auto", max_iter=10_000, random_state=0)
    normal: Array = machine.fit((values - centre) / spread, marks).coef_[0] / spread
    return normal


def lda(values: Array, marks: Marks) -> Array:
    """That of linear discriminant analysis (Saboo et al. 2020, section 3), the covariance shrunk as Ledoit and Wolf (2004) do: [d]."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    centre, spread = values.mean(axis=0), _spread(values)
    analysis = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5])
    normal: Array = analysis.fit((values - centre) / spread, marks).coef_[0] / spread
    return normal


def mean_difference(values: Array, marks: Marks) -> Array:
    """The mean of the codes with the finding minus that of those without: [d]."""
    difference: Array = values[marks].mean(axis=0) - values[~marks].mean(axis=0)
    return difference


METHODS: dict[str, Callable[[Array, Marks], Array]] = {"svm": svm, "lda": lda, "mean": mean_difference}


def find_direction(values: Array, marks: Marks, method: str) -> Array:
    """The direction of unit length [d] by one of METHODS, towards codes [n, d] that are marked [n].

    Raises ConfigError for fewer than two films of a class, and for classes that this method finds no direction between.
    """
    check_classes(marks)
    return unit(METHODS[method](np.asarray(values, dtype=np.float64), marks))


def paired(without: Array, with_it: Array) -> Array:
    """The unit direction from codes [n, d] of films to those of the same films edited (Saboo et al. 2020, 2C), in the mean: [d]."""
    if not len(without) or without.shape != with_it.shape:
        raise ConfigError(f"pairs need one film or more, and as many edited ones: {len(without)} and {len(with_it)}")
    return unit((np.asarray(with_it, dtype=np.float64) - without).mean(axis=0))


def conditioned(direction: Array, others: Sequence[Array]) -> Array:
    """What of a unit direction [d] lies across all `others`, of unit length: along it, they stay (Shen et al. 2020, InterFaceGAN, 2.3).

    Raises ConfigError where nothing is left.
    """
    if not others:
        return direction
    basis = np.linalg.qr(np.stack(others, axis=1))[0]
    left: Array = direction - basis @ (basis.T @ direction)
    if np.linalg.norm(left) < 1e-6:
        raise ConfigError("nothing is left of the direction beside the others that it is made independent of")
    return unit(left)


def judge_direction(values: Array, marks: Marks, method: str, *, seed: int) -> DirectionFigures:
    """What directions of this method are worth for these codes [n, d] and marks [n]; see `DirectionFigures`. Raises as `find_direction`."""
    check_classes(marks, least=FOLDS)
    values = np.asarray(values, dtype=np.float64)
    whole = values @ find_direction(values, marks, method)
    along, is_right = np.empty(len(values)), np.empty(len(values), dtype=bool)
    for held_out in folds(marks, seed):
        rest = ~held_out
        direction = find_direction(values[rest], marks[rest], method)
        known = values[rest] @ direction
        with_it, without = known[marks[rest]], known[~marks[rest]]
        middle, scale = (with_it.mean() + without.mean()) / 2, (with_it.std() + without.std()) / 2
        along[held_out] = (values[held_out] @ direction - middle) / max(scale, np.finfo(float).tiny)
        is_right[held_out] = (along[held_out] > 0) == marks[held_out]
    return DirectionFigures(
        films_with=int(marks.sum()),
        films_without=int((~marks).sum()),
        separation=separation(along, marks),
        separation_in_sample=separation(whole, marks),
        accuracy=float((is_right[marks].mean() + is_right[~marks].mean()) / 2),
        auc=auc(along, marks),
    )


def separation(along: Array, marks: Marks) -> float:
    """Distance of the means of two classes on a line [n] in units of the mean of their standard deviations."""
    with_it, without = along[marks], along[~marks]
    return float((with_it.mean() - without.mean()) / max((with_it.std() + without.std()) / 2, np.finfo(float).tiny))


def check_classes(marks: Marks, *, least: int = 2) -> None:
    """Raises ConfigError unless there are `least` films of each class."""
    counts = int(marks.sum()), int((~marks).sum())
    if min(counts) < least:
        raise ConfigError(f"a direction needs {least} films or more with the attribute and without it: {counts[0]} and {counts[1]}")


def unit(vector: Array) -> Array:
    """The vector at length 1. Raises ConfigError for one of no length."""
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length < 1e-12:
        raise ConfigError("no direction was found: the codes of both classes have one mean")
    return vector / length


def _spread(values: Array) -> Array:
    """Standard deviation of each number, 1 where it is the same in all codes, but for rounding."""
    spread: Array = values.std(axis=0)
    return np.where(spread > 1e-9 * spread.max(initial=0.0), spread, 1.0)


def folds(marks: Marks, seed: int) -> Iterator[Marks]:
    """FOLDS disjoint parts, each with its share of both classes."""
    fold = np.empty(len(marks), dtype=np.int64)
    for each in (marks, ~marks):
        order = np.random.default_rng([seed, 0]).permutation(int(each.sum()))
        fold[each] = order % FOLDS
    for number in range(FOLDS):
        yield fold == number
