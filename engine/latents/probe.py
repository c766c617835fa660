"""What a code is worth: how well a linear classifier on codes tells an attribute, beside other codes and thumbnails of the same films."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.classify.roc import bootstrap_auc
from engine.latents.directions import Array, Marks, check_classes, folds

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # inverse strengths that are tried on the films of a fold that train
RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class ProbeFigures:
    """Area under the ROC curve of films that the classifier was not fitted on, with its 95 % bootstrap interval.

    `what`: the representation, of `numbers` a film; `attribute`: what it was asked, which `films_with` films have of `films`.
    """

    what: str
    attribute: str
    numbers: int
    films: int
    films_with: int
    auc: float
    low: float
    high: float


def probe(values: Array, marks: Marks, *, seed: int) -> Array:
    """Logits [n] of logistic regression on standardised numbers [n, d], each film's by a fit on the other four fifths.

    The penalty is chosen within those, by the area under the curve of a third of them. Raises ConfigError for fewer than five of a class.
    """
    check_classes(marks, least=5)
    values = np.asarray(values, dtype=np.float64)
    logits = np.empty(len(values))
    for held_out in folds(marks, seed):
        rest = ~held_out
        logits[held_out] = _fitted(values[rest], marks[rest], seed).decision_function(values[held_out])
    return logits


def compare(
    representations: Mapping[str, Array], attributes: Mapping[str, tuple[Sequence[int], Marks]], *, seed: int
) -> list[ProbeFigures]:
    """Every representation [films, d] for every attribute: places of the films it is known of, and marks of these."""
    found = []
    for attribute, (places, marks) in attributes.items():
        for what, values in representations.items():
            logits = probe(values[np.asarray(places)], marks, seed=seed)
            _, macro = bootstrap_auc(logits[:, None], marks[:, None].astype(np.float64), resamples=RESAMPLES, seed=seed)
            found.append(
                ProbeFigures(
                    what=what,
                    attribute=attribute,
                    numbers=values.shape[1],
                    films=len(marks),
                    films_with=int(marks.sum()),
                    auc=macro.value,
                    low=macro.low,
                    high=macro.high,
                )
            )
    return found


def _fitted(values: Array, marks: Marks, seed: int):  # type: ignore[no-untyped-def]  # scikit-learn has no types
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
    inner = StratifiedKFold(min(3, int(marks.sum()), int((~marks).sum())), shuffle=True, random_state=seed)
    search = GridSearchCV(model, {"logisticregression__C": PENALTIES}, scoring="roc_auc", cv=inner)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fits that did not settle at the weakest penalty
        return search.fit(values, marks)
