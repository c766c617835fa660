"""Which films train, which are held out and which must not be seen: by patient, so that no patient is on two sides."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ConfigError, SourceError
from engine.source.plan_file import LABEL
from engine.stratified_split import PATIENT_COLUMNS, stratify
from trainers.exclusions import read_exclusions
from trainers.packed_films import PackedFilms
from trainers.presets.films import SplitConfig

log = logging.getLogger(__name__)

_SPLIT_COLUMN, _TEST = "split", "test"
Indices = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Indices into the packed films, ascending. `named`: films that the list or the manifest's column `split` leaves out;
    `excluded`: these and all others of the same patients, counted over the whole source. Patients are counted where films are left.
    """

    train: Indices
    validation: Indices
    train_patients: int
    validation_patients: int
    named: int
    excluded: int

    def sentence(self) -> str:
        """The split in one line for a person."""
        parts = [
            f"{len(self.train)} films of {self.train_patients} patients train",
            f"{len(self.validation)} films of {self.validation_patients} are held out",
        ]
        if self.excluded:
            parts.append(f"{self.excluded} are left out ({self.named} named, {self.excluded - self.named} of the same patients)")
        return ", ".join(parts)


def split_films(packed: PackedFilms, cfg: SplitConfig, labels: np.ndarray[Any, Any] | None = None) -> Split:
    """Divides the films of `packed` by patient: the hash of (seed, patient) decides, so that a film that is added moves no patient.
    With `cfg.stratify` the `labels` [films, labels] of the pack decide (`engine/stratified_split.py`).

    Where the shares come out so that no patient is held out, or none trains, the one nearest to the limit changes sides. A film whose
    patient is not named counts as a patient of its own. Raises ConfigError for a column or list that cannot be used and for `stratify`
    without labels, SourceError where no film is left to train on.
    """
    patients = _patients(packed, cfg.patient_column)
    named = _named(packed, cfg, patients)
    unseen = set(patients[named].tolist())
    excluded = np.fromiter((patient in unseen for patient in patients.tolist()), dtype=bool, count=len(patients))
    left = np.flatnonzero(~excluded[packed.rows])
    if not len(left):
        raise SourceError(f"no film is left to train on; left out as not to be seen: {excluded.sum()}")
    names, of_film = np.unique(patients[packed.rows[left]], return_inverse=True)
    is_held_out = _stratified(names, of_film, left, labels, cfg) if cfg.stratify else _held_out(names.tolist(), cfg)
    train, validation = left[~is_held_out[of_film]], left[is_held_out[of_film]]
    return Split(
        train=train,
        validation=validation,
        train_patients=int((~is_held_out).sum()),
        validation_patients=int(is_held_out.sum()),
        named=int(named.sum()),
        excluded=int(excluded.sum()),
    )


def _stratified(
    names: np.ndarray[Any, Any], of_film: np.ndarray[Any, Any], left: Indices, labels: np.ndarray[Any, Any] | None, cfg: SplitConfig
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which patients are held out, so that both sides have their share of every label."""
    if labels is None:
        raise ConfigError("--stratify needs a task that learns from labels; this one has none")
    sides = stratify(names[of_film].tolist(), labels[left], (1 - cfg.validation, cfg.validation), seed=cfg.seed)
    held_out = np.zeros(len(names), dtype=bool)
    held_out[of_film] = sides == 1
    return held_out


def _held_out(patients: list[str], cfg: SplitConfig) -> np.ndarray[Any, np.dtype[np.bool_]]:
    places = np.array([_place(cfg.seed, patient) for patient in patients])
    held_out = np.asarray(places < cfg.validation)
    if cfg.validation > 0 and len(patients) > 1:
        if not held_out.any():
            held_out[places.argmin()] = True
        if held_out.all():
            held_out[places.argmax()] = False
    elif held_out.all():
        held_out[:] = False
    return held_out


def _place(seed: int, patient: str) -> float:
    """Where a patient lies in [0, 1), evenly spread."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{patient}".encode()).digest()[:6], "big") / 2**48


def _patients(packed: PackedFilms, column: str) -> np.ndarray[Any, Any]:
    """The patient of every row of the plan, as strings."""
    if packed.index.kind == "phantom":  # each a patient of its own
        return np.array([f"row {row}" for row in range(packed.index.plan_rows)], dtype=object)
    if packed.plan is None:
        raise SourceError("films can be divided by patient only where their source is at hand")
    labels = [name.removeprefix(LABEL) for name in packed.plan.column_names if name.startswith(LABEL)]
    if column and column not in labels:
        raise ConfigError(f"source has no column to name the patient, it has {', '.join(labels) or 'none'}: {column}")
    chosen = column or next((name for name in PATIENT_COLUMNS if name in labels), None)
    ids = packed.plan.column("sample_id").to_pylist()
    if chosen is None:
        log.warning(
            "no column names the patient, so each film counts as one; --patient-column takes one of: %s", ", ".join(labels) or "none"
        )
        return np.array([f"film {name}" for name in ids], dtype=object)
    cells = packed.plan.column(LABEL + chosen).to_pylist()
    if missing := cells.count(None):
        log.warning("films without a patient in column %s, each counts as a patient of its own: %d", chosen, missing)
    return np.array([f"film {name}" if cell is None else _patient(cell) for cell, name in zip(cells, ids, strict=True)], dtype=object)


def _patient(cell: str) -> str:
    return f"patient {cell}"


def _named(packed: PackedFilms, cfg: SplitConfig, patients: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows of the plan the list, or the manifest's column `split`, leaves out."""
    named = np.zeros(len(patients), dtype=bool)
    if packed.plan is not None and LABEL + _SPLIT_COLUMN in packed.plan.column_names:
        cells = packed.plan.column(LABEL + _SPLIT_COLUMN).to_pylist()
        named |= np.array([(cell or "").strip().lower() == _TEST for cell in cells])
    if cfg.exclude:
        if packed.plan is None:
            raise SourceError(f"a list of films to leave out needs their source at hand: {cfg.exclude}")
        listed = read_exclusions(Path(cfg.exclude), (cfg.patient_column,) if cfg.patient_column else PATIENT_COLUMNS)
        ids, uris = (packed.plan.column(name).to_pylist() for name in ("sample_id", "uri"))
        found = np.array([listed.has(name, uri, packed.root) for name, uri in zip(ids, uris, strict=True)])
        unseen = set(map(_patient, listed.patients))
        found |= np.array([patient in unseen for patient in patients.tolist()])
        if not found.any():
            log.warning("no film of the source is in the list of those to leave out: %s", cfg.exclude)
        named |= found
    return named
