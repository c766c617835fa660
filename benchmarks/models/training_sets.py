"""Films to train a classifier on, each set as a manifest with a column a label: real ones, the same embedded, and made ones."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.archive.reader import open_archive, read_values
from engine.archive.root import plan_beside
from engine.classify.classifier import Classifier
from engine.encode.codec import Codec, codec_files
from engine.encode_dataset import encode_dataset
from engine.errors import SourceError
from engine.job import EMBED_LIMIT, software_versions
from engine.labels import LabelSpec
from engine.latents.codes_archive import like_codec, write_codes
from engine.latents.film_labels import of_plan
from engine.latents.made_set import LabelledBy, MadeSet, Marks
from engine.pictures import safe_name
from engine.reconstruct import reconstruct
from engine.records import Status
from engine.replay import listed
from engine.stratified_split import PATIENT_COLUMNS

PATIENT = "patient"


@dataclass(frozen=True, kw_only=True, eq=False)
class RealFilms:
    """Ids of the films of a source, their marks [films, labels], and their patients, each film its own where no column names them."""

    labels: tuple[str, ...]
    ids: tuple[str, ...]
    marks: Marks
    patients: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """A manifest and how each label reads in it; `share` of the films that have each, and how many films there are."""

    source: str
    specs: tuple[str, ...]
    share: Mapping[str, float]
    films: int


def read_real(source: str, specs: Sequence[str]) -> RealFilms:
    """What a source says of its films. Raises SourceError where it leaves a label of one open."""
    parsed = [LabelSpec.parse(text) for text in specs]
    with listed(source, id_from=None) as plan:
        table = of_plan(plan, None)
        ids = [ref.sample_id for shard in plan.shards() for ref in shard.refs]
    for column in (column for spec in parsed for column in spec.columns):
        if column not in table:
            raise SourceError(f"training films have no column {column}, which the labels are made of: {source}")
    cells = {name: [column[each] for each in ids] for name, column in table.items()}
    said = np.array([spec.marks(cells) for spec in parsed], dtype=object).T
    if None in said:
        raise SourceError(f"labels of training films must say yes or no of each, they leave some open: {source}")
    named = next((cells[name] for name in PATIENT_COLUMNS if name in cells), [None] * len(ids))
    patients = tuple(name if patient is None else patient for name, patient in zip(ids, named, strict=True))
    return RealFilms(labels=tuple(spec.name for spec in parsed), ids=tuple(ids), marks=said.astype(bool), patients=patients)


def real_set(source: str, specs: Sequence[str], real: RealFilms) -> TrainingSet:
    """The source itself."""
    return TrainingSet(source=source, specs=tuple(specs), share=_shares(real.labels, real.marks), films=len(real.ids))


def embedded_set(source: str, real: RealFilms, codec: str, archive: Path, *, refine_steps: int) -> TrainingSet:
    """The films as their codes give them back, with the labels that they have. The archive stays, a record of how codes lie."""
    encode_dataset(source, str(archive), codec, workers=0, metrics="none", refine_steps=refine_steps, quiet=True)
    films = archive.with_name("embedded")
    reconstruct(archive, films, codec=codec)
    dataset = open_archive(archive)
    status = dict(zip(read_values(dataset, "sample_id").tolist(), read_values(dataset, "status").tolist(), strict=True))
    kept = [at for at, name in enumerate(real.ids) if status.get(name) in (Status.OK, Status.REFINE_DIVERGED)]
    ids, patients = ([of[at] for at in kept] for of in (real.ids, real.patients))
    return _write(films / "labels.csv", ids, patients, real.labels, real.marks[kept])


def write_made(made: MadeSet, codec: Codec, codec_path: str, classifier: Classifier, archive: Path) -> Path:
    """The made codes as an archive with labels, in place of a former one, and its films beside it, in the folder that is returned."""
    shutil.rmtree(archive, ignore_errors=True)
    plan_beside(archive).unlink(missing_ok=True)
    files = codec_files(codec_path)
    embedded = sum(map(len, files.values())) <= EMBED_LIMIT
    like = like_codec(codec, software=software_versions(), codec_files=files if embedded else None)
    labels = {"patient": made.patients, "label": made.aims}
    about = {"by": "made-set", "classifier": {"name": classifier.name, "digest": classifier.digest}, "figures": made.figures}
    write_codes(archive, like, values=made.values, ids=made.ids, labels=labels, made=about)
    folder = archive.with_name("made")
    reconstruct(archive, folder, codec=None if embedded else codec_path)
    return folder


def made_set(made: MadeSet, folder: Path, by: LabelledBy) -> TrainingSet:
    """The films of `write_made` in `folder`, labelled one way or the other."""
    return _write(folder / f"by-{by}.csv", made.ids, made.patients, made.labels, made.marks(by))


def _write(path: Path, ids: Sequence[str], patients: Sequence[str], labels: Sequence[str], marks: Marks) -> TrainingSet:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "id", PATIENT, *labels])
        for name, patient, of_film in zip(ids, patients, marks.astype(int).tolist(), strict=True):
            table.writerow([safe_name(name), name, patient, *of_film])
    return TrainingSet(source=str(path), specs=tuple(labels), share=_shares(labels, marks), films=len(ids))


def _shares(labels: Sequence[str], marks: Marks) -> dict[str, float]:
    return dict(zip(labels, marks.mean(axis=0).tolist(), strict=True)) | {"none": float((~marks.any(axis=1)).mean())}
