"""`bench gan-train` in its quick form: four sets, a classifier of each, and one table."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.inputs import Options
from benchmarks.models import gan_train
from benchmarks.models.training_sets import embedded_set, read_real, real_set
from benchmarks.report import Row
from engine.errors import SourceError

COLUMNS = ("cardiomegaly", "effusion_left", "effusion_right", "opacity", "pneumothorax", "device")
FILLED = ("opacity", "pneumothorax")  # which of these say where, and nothing where there is none
SPECS = ("cardiomegaly", "effusion: effusion_left, effusion_right", "opacity: opacity?")
FILMS = 32


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of 32x32 with a bright bar for each label that is there, by chance; two films a patient."""
    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(1)
    with (folder / "films.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "id", "patient", *COLUMNS])
        for film in range(FILMS):
            yes = rng.integers(0, 2, len(COLUMNS)).tolist()
            pixels = rng.integers(0, 100, (32, 32), dtype=np.uint8)
            for at in np.flatnonzero(yes):
                pixels[5 * at : 5 * at + 5] += 150
            cv2.imwrite(str(folder / f"{film}.png"), pixels)
            cells = [("left" if there else "") if name in FILLED else there for name, there in zip(COLUMNS, yes, strict=True)]
            table.writerow([f"{film}.png", f"film {film}", f"p{film // 2}", *cells])
    return folder / "films.csv"


@pytest.fixture(scope="module")
def options(small_codec: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> Options:
    scratch = tmp_path_factory.mktemp("scratch")
    return Options(films=str(films), codec=str(small_codec), quick=True, scratch=scratch, systems=scratch / "none")


@pytest.fixture(scope="module")
def rows(options: Options) -> dict[str, Row]:
    return {row.step: row for row in gan_train.rows(options)}


@pytest.mark.slow
def test_every_set_teaches_a_classifier_and_all_meet_the_same_films(rows: dict[str, Row]) -> None:
    trained = [name for name in (gan_train.REAL, gan_train.EMBEDDED, gan_train.GENERATED) if not rows[f"trained with: {name}"].failed]
    assert trained[:2] == [gan_train.REAL, gan_train.EMBEDDED]
    real, embedded = (rows[f"trained with: {name}"] for name in trained[:2])
    assert real.values == embedded.values == (FILMS,)
    assert real.figures == embedded.figures
    for name in trained:
        (area,) = rows[f"average: {name}"].values
        assert rows[f"average: {name}"].figures["low"] <= area <= rows[f"average: {name}"].figures["high"]
        assert area == pytest.approx(np.mean([row.values[0] for step, row in rows.items() if step.endswith(f": {name}")][1:-1]))
    first, second = (rows[f"average: {name}"] for name in trained[:2])
    assert second.figures["less Real"] == pytest.approx(second.values[0] - first.values[0])


@pytest.mark.slow
def test_made_films_are_told_by_label(rows: dict[str, Row]) -> None:
    made = {step.removeprefix("made for: "): row for step, row in rows.items() if step.startswith("made for: ")}
    assert list(made) == ["cardiomegaly", "effusion", "opacity", "pneumothorax", "device", "clear"]
    assert sum(row.figures["wanted"] for row in made.values()) == FILMS
    films = sum(row.figures["films"] for row in made.values())
    for name in (gan_train.GENERATED, gan_train.BY_AIM):
        trained = rows[f"trained with: {name}"]  # by so few films that a label may be missing, which is told
        assert trained.values == (films,) or "cannot be learned" in trained.failed


def test_a_codec_that_is_not_there_is_a_failed_row(tmp_path: Path) -> None:
    (row,) = gan_train.rows(Options(codec=str(tmp_path / "none"), quick=True, scratch=tmp_path))
    assert "codec" in row.failed


def test_embedded_films_keep_their_labels_and_patients(films: Path, small_codec: Path, tmp_path: Path) -> None:
    real = read_real(str(films), SPECS)
    assert (real.labels, len(real.ids), len(set(real.patients))) == (("cardiomegaly", "effusion", "opacity"), FILMS, FILMS // 2)
    found = embedded_set(str(films), real, str(small_codec), tmp_path / "e.zarr", refine_steps=0)
    assert found.share == real_set(str(films), SPECS, real).share
    again = read_real(found.source, found.specs)
    assert (again.ids, again.patients, again.marks.tolist()) == (real.ids, real.patients, real.marks.tolist())
    assert cv2.imread(str(tmp_path / "embedded" / "film 3.png")).shape == (32, 32, 3)


def test_labels_that_say_nothing_are_refused(films: Path) -> None:
    with pytest.raises(SourceError, match="training films have no column gout, which the labels are made of"):
        read_real(str(films), ["gout"])
    with pytest.raises(SourceError, match="labels of training films must say yes or no of each, they leave some open"):
        read_real(str(films), ["patient"])
