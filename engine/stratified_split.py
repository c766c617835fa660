"""Iterative stratification of patients (Sechidis et al. 2011): sides that have their share of every label, and no patient on two."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.errors import ConfigError

PATIENT_COLUMNS = ("patient_id", "patient", "PatientID", "Patient ID")  # that a table may name the patient of a film by

Sides = np.ndarray[Any, np.dtype[np.int64]]
Values = np.ndarray[Any, np.dtype[np.float64]]


def stratify(patients: Sequence[str], labels: np.ndarray[Any, Any], shares: Sequence[float], *, seed: int) -> Sides:
    """The side, 0 to len(shares) - 1, of each film, from its patient [films], labels [films, labels] and the shares of the sides.

    A patient's labels are the means over their films (Segal et al. 2021, 3.3). Label by label, the rarest among the patients that are
    left first, each patient who has some of it goes to the side that lacks most of it, then to the one that lacks most patients; equals
    are decided by the hash of (seed, patient), so neither the films' order nor anything random counts. Patients without any label follow.
    Where there are as many patients as sides of a share above 0, each of these has one. Raises ConfigError for shares that are not 0 or
    more, with a sum of 1.
    """
    if min(shares, default=-1) < 0 or not abs(sum(shares) - 1) < 1e-9:
        raise ConfigError(f"shares must be 0 or more, with a sum of 1: {', '.join(map(str, shares))}")
    names, of_film = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
    means = np.zeros((len(names), labels.shape[1]))
    np.add.at(means, of_film, labels)
    means /= np.bincount(of_film, minlength=len(names))[:, None]
    sides = _deal(means, np.asarray(shares, dtype=np.float64), [_place(seed, name) for name in names.tolist()])
    _fill_empty(sides, np.asarray(shares), means)
    return sides[of_film]


def _deal(means: Values, shares: Values, places: list[float]) -> Sides:
    """The side of each patient: algorithm 1 of the paper, with amounts in place of counts, since a patient may have a part of a label."""
    order = np.argsort(places, kind="stable")
    lacking = shares * len(means)  # patients
    lacking_labels = shares[:, None] * means.sum(axis=0)  # [sides, labels]
    allowed = shares > 0
    sides = np.full(len(means), -1, dtype=np.int64)

    def put(patient: int, wanted: Values) -> None:
        best = np.flatnonzero(allowed & (wanted >= wanted[allowed].max() - 1e-9))
        best = best[lacking[best] >= lacking[best].max() - 1e-9]
        side = int(best[int(places[patient] * 2**32) % len(best)])
        sides[patient] = side
        lacking[side] -= 1
        lacking_labels[side] -= means[patient]

    while True:
        left = means[sides < 0].sum(axis=0)
        if not (left > 1e-9).any():
            break
        rarest = int(np.argmin(np.where(left > 1e-9, left, np.inf)))
        for patient in order[(sides[order] < 0) & (means[order, rarest] > 0)].tolist():
            put(patient, lacking_labels[:, rarest])
    for patient in order[sides[order] < 0].tolist():
        put(patient, lacking)
    return sides


def _fill_empty(sides: Sides, shares: Values, means: Values) -> None:
    """Gives each empty side the patient with the fewest labels of the fullest one."""
    for side in np.flatnonzero(shares > 0).tolist():
        counts = np.bincount(sides, minlength=len(shares))
        fullest = int(counts.argmax())
        if len(sides) and counts[side] == 0 and counts[fullest] > 1:
            those = np.flatnonzero(sides == fullest)
            sides[those[int(means[those].sum(axis=1).argmin())]] = side


def _place(seed: int, patient: str) -> float:
    """Where a patient lies in [0, 1), evenly spread."""
    return int.from_bytes(hashlib.sha256(f"stratify\n{seed}\n{patient}".encode()).digest()[:6], "big") / 2**48
