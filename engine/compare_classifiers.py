"""Several classifiers on the same films: the area under the curve of each label, and how far each is from the first (GAN-train)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.classify.classifier import Classifier
from engine.classify.film_logits import FilmLogits, film_logits
from engine.classify.roc import Array, Interval, Values, bootstrap_areas, interval, mean_areas
from engine.csv_table import write_csv
from engine.errors import ConfigError, SourceError
from engine.labels import LabelSpec, Term
from engine.latents.film_labels import Table, of_plan, read_table
from engine.replay import listed
from engine.stratified_split import PATIENT_COLUMNS

AVERAGE = "average"
COLUMNS = ("label", "classifier", "films", "films_with", "auc", "low", "high", "difference", "difference_low", "difference_high")
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One classifier and one label, or the `AVERAGE` of all: area under the ROC curve, and the same less that of the first classifier.

    Both have their 95 % bootstrap interval; that of the difference is paired, over the same draws of films. `films_with`: films that have
    the label, 0 for the average.
    """

    label: str
    classifier: str
    films_with: int
    auc: Interval
    difference: Interval


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A table: `labels` down, `classifiers` across. Films `unread` or `unlabelled` were left out, for all classifiers.

    `patients`: what was drawn, None where no column names them and films were. `not_shared`: labels that not every classifier knows;
    `one_class`: labels that all films have, or none.
    """

    classifiers: tuple[str, ...]
    labels: tuple[str, ...]
    cells: tuple[Cell, ...]
    films: int
    patients: int | None
    unread: int
    unlabelled: int
    not_shared: tuple[str, ...]
    one_class: tuple[str, ...]

    def cell(self, label: str, classifier: str) -> Cell:
        """The cell of a label or `AVERAGE`, and a classifier."""
        return next(cell for cell in self.cells if (cell.label, cell.classifier) == (label, classifier))


def compare_classifiers(
    source: str,
    classifiers: Mapping[str, Classifier],
    *,
    labels: str | None = None,
    attributes: Sequence[str] = (),
    id_from: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Tests classifiers by name on the films of `source`, the first of them being what the others are held against.

    Trained on synthetic films and tested on real ones this is GAN-train, trained on real films and tested on synthetic ones GAN-test
    (Shmelkov et al. 2018); the average is the last row of table 2 of Segal et al. 2021. Films are drawn for the intervals patient by
    patient where a column of PATIENT_COLUMNS names them. `labels`: a table, or `phantom:N`; left out: what the source says of its films.
    `attributes`: labels as `LabelSpec` reads them; left out: all that the classifiers share, by the columns that they were trained with.

    Raises ConfigError where classifiers share no label or a column is not there, SourceError where films cannot be listed, no id is in the
    labels, or no label has films with it and without it.
    """
    specs, not_shared = _shared(classifiers, attributes)
    with listed(source, id_from=id_from) as plan:
        table = own = of_plan(plan, None)
        if labels is not None:  # of the films themselves only who their patients are
            table = {name: own[name] for name in PATIENT_COLUMNS if name in own} | dict(read_table(labels, source, None))
        found_specs = [_readable(candidates, table) for candidates in specs]
        found = film_logits(plan, classifiers)
    ids, marks = _marks(found.ids, table, found_specs)
    one_class = [spec.name for spec, column in zip(found_specs, marks.T, strict=True) if len(set(column.tolist())) < 2]
    names = tuple(spec.name for spec in found_specs if spec.name not in one_class)
    if not names:
        raise SourceError(f"no label has films with it and films without it, among {len(ids)} films: {', '.join(one_class)}")
    marks = marks[:, [at for at, spec in enumerate(found_specs) if spec.name in names]]
    patients = _patients(ids, table)
    areas = {
        name: bootstrap_areas(_scores(found, name, classifier, ids, names), marks, resamples=resamples, seed=seed, groups=patients)
        for name, classifier in classifiers.items()
    }
    return Comparison(
        classifiers=tuple(classifiers),
        labels=names,
        cells=tuple(_cells(areas, names, marks.sum(axis=0).astype(int).tolist())),
        films=len(ids),
        patients=None if patients is None else int(patients.max()) + 1,
        unread=found.unread,
        unlabelled=len(found.ids) - len(ids),
        not_shared=tuple(not_shared),
        one_class=tuple(one_class),
    )


def write_table(path: Path, found: Comparison) -> None:
    """All cells as CSV with COLUMNS. Raises ConfigError where it cannot be written."""
    write_csv(path, COLUMNS, (_line(cell, found.films) for cell in found.cells))


def _line(cell: Cell, films: int) -> list[object]:
    figures = [f"{value:.6f}" for each in (cell.auc, cell.difference) for value in (each.value, each.low, each.high)]
    return [cell.label, cell.classifier, films, cell.films_with or "", *figures]


def _shared(classifiers: Mapping[str, Classifier], attributes: Sequence[str]) -> tuple[list[list[LabelSpec]], list[str]]:
    """Of each label that is asked for, how it may be read, the best first; and the labels that not all classifiers know."""
    every = dict.fromkeys(label for classifier in classifiers.values() for label in classifier.labels)
    shared = [label for label in every if all(label in classifier.labels for classifier in classifiers.values())]
    not_shared = [label for label in every if label not in shared]
    if not shared:
        raise ConfigError(f"classifiers that are compared must share labels, these share none: {', '.join(classifiers)}")
    asked = [LabelSpec.parse(text) for text in attributes]
    for spec in asked:
        if spec.name not in shared:
            raise ConfigError(f"labels that these classifiers share are {', '.join(shared)}; there is no such one: {spec.name}")
    if len({spec.name for spec in asked}) != len(asked):
        raise ConfigError(f"labels must have names of their own: {', '.join(spec.name for spec in asked)}")
    return [[spec] for spec in asked] or [_trained_by(classifiers, label) for label in shared], not_shared


def _trained_by(classifiers: Mapping[str, Classifier], label: str) -> list[LabelSpec]:
    """How each classifier read a label in its training, then the column of its name."""
    told = (classifier.spec.provenance.get("settings", {}).get("labels", ()) for classifier in classifiers.values())
    specs = (LabelSpec.parse(text) for texts in told for text in texts)
    return [*dict.fromkeys(spec for spec in specs if spec.name == label), LabelSpec(label, (Term(label, "yes"),))]


def _readable(candidates: Sequence[LabelSpec], table: Table) -> LabelSpec:
    """The first of which all columns are there."""
    if found := [spec for spec in candidates if all(column in table for column in spec.columns)]:
        return found[0]
    wanted = candidates[0]
    have = ", ".join(list(table)[:8]) + (" ..." if len(table) > 8 else "")
    advice = f"say which column it is with --attribute '{wanted.name}: COLUMN'"
    raise ConfigError(f"the films have no column {', '.join(wanted.columns)}, there are {have or 'none'}; {advice}: {wanted.name}")


def _marks(ids: Sequence[str], table: Table, specs: Sequence[LabelSpec]) -> tuple[list[str], Array]:
    """The films of which every label is known, and their marks [films, labels] (0, 1)."""
    columns = list(dict.fromkeys(column for spec in specs for column in spec.columns))
    there = [name for name in ids if all(name in table[column] for column in columns)]
    if not there:
        raise SourceError(f"none of the {len(ids)} films is in the labels, for example: {next(iter(ids), 'no film could be read')}")
    cells = {column: [table[column][name] for name in there] for column in columns}
    said = list(zip(*(spec.marks(cells) for spec in specs), strict=True))
    known = [at for at, marks in enumerate(said) if None not in marks]
    if not known:
        raise SourceError(f"of no film do the labels say yes or no to all of: {', '.join(spec.name for spec in specs)}")
    return [there[at] for at in known], np.array([said[at] for at in known], dtype=np.float64)


def _patients(ids: Sequence[str], table: Table) -> Array | None:
    """The number of each film's patient, a film without one counting as a patient of its own; None where no column names them."""
    column = next((name for name in PATIENT_COLUMNS if name in table), None)
    if column is None:
        return None
    numbers: dict[tuple[str, bool], int] = {}
    named = [table[column].get(name) for name in ids]
    keys = [(name if patient is None else patient, patient is None) for name, patient in zip(ids, named, strict=True)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


def _scores(found: FilmLogits, name: str, classifier: Classifier, ids: Sequence[str], labels: Sequence[str]) -> Array:
    place = {each: at for at, each in enumerate(found.ids)}
    scores: Array = found.logits[name][[place[each] for each in ids]][:, [classifier.index(label) for label in labels]]
    return scores


def _cells(areas: Mapping[str, Values], labels: Sequence[str], films_with: Sequence[int]) -> list[Cell]:
    first = next(iter(areas.values()))
    found = []
    for at, (label, count) in enumerate(zip((*labels, AVERAGE), (*films_with, 0), strict=True)):
        for name, of in areas.items():
            mine, other = (mean_areas(each) if label is AVERAGE else each[:, at] for each in (of, first))
            found.append(Cell(label=label, classifier=name, films_with=count, auc=interval(mine), difference=interval(mine - other)))
    return found
