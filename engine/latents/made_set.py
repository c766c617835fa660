"""A labelled set of made films in the proportions of real ones (Segal et al. 2021, 4.5): patients by class optimisation, and clear ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Literal

import numpy as np
import torch

from engine.classify.classifier import Classifier
from engine.encode.codec import Codec
from engine.errors import ConfigError
from engine.latents.codes import Values
from engine.latents.optimised import Climb, optimise_class
from engine.latents.starts import Draws, Prior

CLEAR = "clear"  # what films without any finding are made for
DRAWS_A_PATIENT = 64  # at most, until one of them is clear
_AT_ONCE = 64

Marks = np.ndarray[Any, np.dtype[np.bool_]]
LabelledBy = Literal["classifier", "aim"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MadeSet:
    """Codes [n, d] of films with their `ids`, `patients`, what each was made for (`aims`: a label, or CLEAR), and `logits` [n, labels].

    `figures`: by aim, films that were wanted and made, patients begun and those that reached it.
    """

    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    values: Values
    ids: tuple[str, ...]
    patients: tuple[str, ...]
    aims: tuple[str, ...]
    logits: Values
    figures: Mapping[str, Mapping[str, int]]

    def marks(self, by: LabelledBy = "classifier") -> Marks:
        """Which labels each film has [n, labels]: those that the classifier sees in it, or only the one that it was made for.

        By the classifier is what one trains with. Optimising a finding brings others along, as Segal et al. find in 4.3 (effusions with
        large hearts), and a film labelled by its aim alone teaches that these are not there; one that noise moved back under the threshold
        teaches a finding that it has not. On phantoms: mean area under the curve 0.763 by the classifier, 0.646 by aim (`bench gan-train`).
        """
        if by == "aim":
            return np.array([[aim == label for label in self.labels] for aim in self.aims]).reshape(len(self.aims), len(self.labels))
        return np.asarray(self.logits >= np.asarray(self.thresholds))


def wanted_films(marks: Marks, labels: tuple[str, ...], films: int) -> dict[str, int]:
    """Of `films` in all, how many to make for each label and for CLEAR, as real films [n, labels] have them.

    A real film with two findings counts for each, so shares are of findings, and add up to one with the films that have none.
    """
    counts = np.array([*marks.sum(axis=0), (~marks.any(axis=1)).sum()], dtype=np.float64)
    if not counts.sum():
        raise ConfigError(f"films are made in the proportions of real ones, and there are none: {len(marks)}")
    edges = np.rint(np.concatenate([[0], counts.cumsum()]) / counts.sum() * films).astype(int)
    return dict(zip((*labels, CLEAR), np.diff(edges).tolist(), strict=True))


def make_set(
    codec: Codec, classifier: Classifier, wanted: Mapping[str, int], *, prior: Prior, draws: Draws, climbing: Climb | None = None
) -> MadeSet:
    """Makes `wanted` films of each label of the classifier and of CLEAR, patient by patient, as `draws` has their number of films.

    A label's patients are optimised (`optimise_class`); one that does not reach its goal is left out, and there may be fewer films. Clear
    ones are starts that the classifier sees no finding in. Both models lie on one device. Raises CodecError for a label that is unknown,
    ConfigError where not one film comes of it.
    """
    judge = _judge(codec, classifier)
    values: list[Values] = []
    ids: list[str] = []
    aims: list[str] = []
    figures: dict[str, dict[str, int]] = {}
    for aim, films in wanted.items():
        patients = math.ceil(films / (sum(draws.films) / 2))
        if not patients:
            figures[aim] = {"wanted": 0, "films": 0, "patients": 0, "reached": 0}
            continue
        if aim == CLEAR:
            found = list(islice(_clear(prior, draws, judge, classifier, DRAWS_A_PATIENT * patients), patients))
            made = [(f"{CLEAR}-{number:06d}", series) for number, series in found]
        else:
            outcome = optimise_class(codec, classifier, aim, count=patients, prior=prior, draws=draws, climbing=climbing)
            made = list(_reached(outcome.rows, outcome.values))
        some = [(patient, film, code) for patient, series in made for film, code in enumerate(series, 1)][:films]
        values += [code[None] for _, _, code in some]
        ids += [f"{patient}-{film}" for patient, film, _ in some]
        aims += [aim] * len(some)
        figures[aim] = {"wanted": films, "films": len(some), "patients": patients, "reached": len(made)}
    if not values:
        raise ConfigError(f"no film was made, for no start reached its goal and none was clear; aims were: {', '.join(wanted)}")
    every = np.concatenate(values)
    return MadeSet(
        labels=classifier.labels,
        thresholds=classifier.thresholds,
        values=every,
        ids=tuple(ids),
        patients=tuple(name.rpartition("-")[0] for name in ids),
        aims=tuple(aims),
        logits=judge(every),
        figures=figures,
    )


def _judge(codec: Codec, classifier: Classifier) -> Callable[[Values], Values]:
    """Codes [n, d] -> logits [n, labels] of their films."""

    @torch.inference_mode()
    def judge(values: Values) -> Values:
        found = [np.empty((0, len(classifier.labels)), np.float32)]
        for first in range(0, len(values), _AT_ONCE):
            codes = torch.from_numpy(values[first : first + _AT_ONCE]).reshape(-1, *codec.code_shape)
            found.append(classifier.logits(codec.generate(codes.to(codec.device))).cpu().numpy())
        return np.concatenate(found)

    return judge


def _clear(
    prior: Prior, draws: Draws, judge: Callable[[Values], Values], classifier: Classifier, most: int
) -> Iterator[tuple[int, Values]]:
    """Patients by number whose start shows nothing, and all their films [n, d]; `most` starts are drawn."""
    lines = np.asarray(classifier.thresholds)
    numbers = islice(count(), most)
    while some := list(islice(numbers, _AT_ONCE)):
        starts = np.stack([draws.start(prior, CLEAR, number, 0.0).code.flatten().cpu().numpy() for number in some])
        for number, code, logits in zip(some, starts, judge(starts), strict=True):
            if (logits < lines).all():
                yield number, draws.series(prior, CLEAR, number, code)


def _reached(rows: Any, values: Values) -> Iterator[tuple[str, Values]]:
    """The patients of an outcome that reached their goal, with all their films [n, d]."""
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row["patient"], []).append(place)
    for patient, of in places.items():
        if rows[of[0]]["reached"] == "1":
            yield patient, values[of]
