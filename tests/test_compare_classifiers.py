"""Classifiers on the same films: areas are scikit-learn's, differences are paired, only what is shared is compared, and what is refused."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from engine.classify.classifier import Classifier, load_classifier
from engine.compare_classifiers import AVERAGE, COLUMNS, compare_classifiers, write_table
from engine.errors import ConfigError, SourceError
from tests.small_classifier import LABELS, write_classifier

FILMS = 40


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Classifier]:
    folder = tmp_path_factory.mktemp("classifiers")
    one, two = (write_classifier(folder / str(seed), seed=seed) for seed in (1, 2))
    swapped = write_classifier(folder / "swapped", ("mass", "gout"), seed=3)
    return {"real": load_classifier(one), "made": load_classifier(two), "same": load_classifier(one), "other": load_classifier(swapped)}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of 16x16 with labels by chance, four films a patient."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(4)
    rows = []
    for film in range(FILMS):
        cv2.imwrite(str(folder / f"{film}.png"), rng.integers(0, 256, (16, 16), dtype=np.uint8))
        rows.append([f"{film}.png", f"p{film // 4}", *rng.integers(0, 2, 2).tolist(), 1])
    return _written(folder / "films.csv", rows)


def _written(path: Path, rows: list[list[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["path", "patient", *LABELS, "gout"], *rows])
    return path


def _rows(manifest: Path) -> list[list[object]]:
    with manifest.open(newline="") as file:
        return [list(row) for row in csv.reader(file)][1:]


def _pick(classifiers: dict[str, Classifier], *names: str) -> dict[str, Classifier]:
    return {name: classifiers[name] for name in names}


def _logits(manifest: Path, classifier: Classifier) -> np.ndarray:
    films = np.stack([cv2.imread(str(manifest.parent / str(row[0])), cv2.IMREAD_GRAYSCALE) for row in _rows(manifest)])
    return classifier.logits(torch.from_numpy(films / 127.5 - 1).float()[:, None]).numpy()


def test_areas_are_those_of_scikit_learn_and_the_average_is_their_mean(classifiers: dict[str, Classifier], manifest: Path) -> None:
    found = compare_classifiers(str(manifest), _pick(classifiers, "real", "made"), resamples=50)
    marks = np.array([[int(str(cell)) for cell in row[2:4]] for row in _rows(manifest)])
    assert (found.films, found.patients, found.labels) == (FILMS, FILMS // 4, LABELS)
    for name in ("real", "made"):
        logits = _logits(manifest, classifiers[name])
        expected = [roc_auc_score(marks[:, at], logits[:, at]) for at in range(2)]
        assert [found.cell(label, name).auc.value for label in LABELS] == pytest.approx(expected, abs=1e-12)
        assert found.cell(AVERAGE, name).auc.value == pytest.approx(np.mean(expected), abs=1e-12)
    first, second = (found.cell(AVERAGE, name) for name in ("real", "made"))
    assert second.difference.value == pytest.approx(second.auc.value - first.auc.value)
    assert second.difference.low < second.difference.value < second.difference.high
    assert [found.cell(label, "made").films_with for label in LABELS] == marks.sum(axis=0).tolist()


def test_a_classifier_beside_itself_differs_by_nothing_at_all(classifiers: dict[str, Classifier], manifest: Path) -> None:
    found = compare_classifiers(str(manifest), _pick(classifiers, "real", "same"), resamples=200)
    for label in (*LABELS, AVERAGE):
        difference = found.cell(label, "same").difference
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)
        auc = found.cell(label, "same").auc
        assert auc.low < auc.value < auc.high


def test_pairing_makes_an_interval_narrower_than_that_of_independent_draws(classifiers: dict[str, Classifier], manifest: Path) -> None:
    """The same classifier but for a little noise: its interval moves with that of the first, their difference hardly moves."""
    near = load_classifier_moved(classifiers["real"])
    found = compare_classifiers(str(manifest), {"real": classifiers["real"], "near": near}, resamples=200)
    auc, difference = found.cell(AVERAGE, "near").auc, found.cell(AVERAGE, "near").difference
    assert 0 < difference.high - difference.low < (auc.high - auc.low) / 2


def load_classifier_moved(classifier: Classifier) -> Classifier:
    """A copy whose last layer is a little off."""
    import copy

    moved = copy.deepcopy(classifier)
    weight = moved.network.classifier.weight
    weight.add_(0.05 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    return moved


def test_only_labels_that_all_know_are_compared(classifiers: dict[str, Classifier], manifest: Path) -> None:
    found = compare_classifiers(str(manifest), _pick(classifiers, "real", "other"), resamples=10)
    assert found.labels == ("mass",)
    assert found.not_shared == ("effusion", "gout")
    with pytest.raises(ConfigError, match="labels that these classifiers share are mass; there is no such one: effusion"):
        compare_classifiers(str(manifest), _pick(classifiers, "real", "other"), attributes=["effusion"])


def test_a_label_of_one_class_is_left_out_and_none_left_is_refused(
    classifiers: dict[str, Classifier], manifest: Path, tmp_path: Path
) -> None:
    found = compare_classifiers(str(manifest), _pick(classifiers, "other"), resamples=10)
    assert (found.labels, found.one_class) == (("mass",), ("gout",))
    with pytest.raises(SourceError, match=f"no label has films with it and films without it, among {FILMS} films: gout"):
        compare_classifiers(str(manifest), _pick(classifiers, "other"), attributes=["gout"])


def test_films_without_pixels_or_labels_are_left_out_and_counted(classifiers: dict[str, Classifier], manifest: Path) -> None:
    rows = _rows(manifest)
    rows[3][2], rows[5][0] = "", "gone.png"
    found = compare_classifiers(str(_written(manifest.with_name("gaps.csv"), rows)), _pick(classifiers, "real"), resamples=10)
    assert (found.films, found.unread, found.unlabelled) == (FILMS - 2, 1, 1)
    rest = [row for at, row in enumerate(rows) if at not in (3, 5)]
    kept = _written(manifest.with_name("kept.csv"), rest)
    assert found.cells == compare_classifiers(str(kept), _pick(classifiers, "real"), resamples=10).cells


def test_films_of_a_patient_are_drawn_together(classifiers: dict[str, Classifier], manifest: Path) -> None:
    """Every film ten times over, as ten films of one patient: the interval is that of the films themselves, not of ten times as many."""
    rows = [[row[0], f"q{at}", *row[2:]] for at, row in enumerate(_rows(manifest))]
    names = [f"again/{Path(str(row[0])).stem}-{copy}.png" for row in rows for copy in range(10)]
    (manifest.parent / "again").mkdir(exist_ok=True)
    for name in names:
        film = Path(name).stem.partition("-")[0]
        (manifest.parent / name).write_bytes((manifest.parent / f"{film}.png").read_bytes())
    tenfold = [[name, *row[1:]] for name, row in zip(names, [row for row in rows for _ in range(10)], strict=True)]
    alone = compare_classifiers(str(_written(manifest.with_name("alone.csv"), rows)), _pick(classifiers, "real"), resamples=100)
    source = str(_written(manifest.with_name("tenfold.csv"), tenfold))
    together = compare_classifiers(source, _pick(classifiers, "real"), resamples=100, id_from="relpath")
    assert (together.films, together.patients) == (10 * FILMS, FILMS)
    for label in (*LABELS, AVERAGE):
        a, b = alone.cell(label, "real").auc, together.cell(label, "real").auc
        assert (b.value, b.low, b.high) == pytest.approx((a.value, a.low, a.high))


def test_patients_are_the_sources_where_another_table_has_the_labels(classifiers: dict[str, Classifier], manifest: Path) -> None:
    table = manifest.with_name("labels.csv")
    table.write_text("\n".join(["id,mass", *(f"{at},{at % 2}" for at in range(FILMS))]))
    found = compare_classifiers(str(manifest), _pick(classifiers, "real"), labels=str(table), attributes=["mass"], resamples=10)
    assert (found.patients, found.cell("mass", "real").films_with) == (FILMS // 4, FILMS // 2)


@pytest.mark.parametrize(
    ("change", "error", "line"),
    [
        ({"labels": "ids.csv"}, SourceError, f"none of the {FILMS} films is in the labels, for example: 0"),
        ({"attributes": ["mass: lump"]}, ConfigError, "the films have no column lump, there are patient, effusion, mass, gout; say which"),
        ({"attributes": ["mass", "mass: gout"]}, ConfigError, "labels must have names of their own: mass, mass"),
        ({"source": "."}, ConfigError, "the films have no column effusion, there are none; say which column it is with --attribute"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    classifiers: dict[str, Classifier], manifest: Path, change: dict[str, object], error: type[Exception], line: str
) -> None:
    (manifest.parent / "ids.csv").write_text("id,effusion,mass\nx,0,1\n")
    request = dict(change)
    source = str(manifest.parent / str(request.pop("source", manifest.name)))
    if "labels" in request:
        request["labels"] = str(manifest.parent / "ids.csv")
    request |= {"id_from": "relpath"} if "source" in change else {}
    with pytest.raises(error, match=f"^{re.escape(line)}"):
        compare_classifiers(source, _pick(classifiers, "real", "made"), **request)  # type: ignore[arg-type]


def test_classifiers_without_a_label_in_common_are_refused(manifest: Path, classifiers: dict[str, Classifier], tmp_path: Path) -> None:
    far = load_classifier(write_classifier(tmp_path, ("gout",)))
    with pytest.raises(ConfigError, match=r"^classifiers that are compared must share labels, these share none: real, far$"):
        compare_classifiers(str(manifest), {"real": classifiers["real"], "far": far})


def test_the_table_has_a_row_a_label_and_classifier(classifiers: dict[str, Classifier], manifest: Path, tmp_path: Path) -> None:
    found = compare_classifiers(str(manifest), _pick(classifiers, "real", "made"), resamples=20)
    write_table(tmp_path / "new" / "table.csv", found)
    with (tmp_path / "new" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["label"], row["classifier"]) for row in rows] == [(cell.label, cell.classifier) for cell in found.cells]
    assert float(rows[-1]["difference"]) == pytest.approx(found.cell(AVERAGE, "made").difference.value, abs=1e-6)
    with pytest.raises(ConfigError, match="the table cannot be written"):
        write_table(tmp_path, found)
