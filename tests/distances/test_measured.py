"""Distances of films on disk equal those of all their features at once, by NumPy and SciPy; archives and their codes beside them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.linalg
import torch

from engine import encode_dataset
from engine.cli import main
from engine.distances.film_sets import ALL, BASELINE, HALVES
from engine.distances.measured import Distances, measure_distances
from engine.distances.written import distance_lines
from engine.errors import ConfigError, SourceError
from engine.features import FeatureNetwork, load_features
from engine.source.phantom import draw_labels
from tests.labelled_films import ATTRIBUTES, SEED, SIZE, write_manifest
from tests.small_classifier import write_classifier


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("distances") / "classifier")


@pytest.fixture(scope="module")
def network(classifier: Path) -> FeatureNetwork:
    return load_features(classifier)


@pytest.fixture(scope="module")
def source(small_films: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_manifest(small_films, tmp_path_factory.mktemp("labels") / "films.csv")


@pytest.fixture(scope="module")
def found(source: str, network: FeatureNetwork) -> Distances:
    return measure_distances(source, network, ATTRIBUTES, contrasts=["sex=F"])


@pytest.fixture(scope="module")
def features(small_films: Path, network: FeatureNetwork) -> np.ndarray:
    """Of all films at once, from their files: each is 16x16 means of 4x4 pixels."""
    films = np.stack([cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(small_films.iterdir())])
    small = (films.astype(np.float32) / 127.5 - 1).reshape(len(films), 16, 4, 16, 4).mean(axis=(2, 4))
    return network.features(torch.from_numpy(small)[:, None]).double().cpu().numpy()


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    c1, c2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    shared = np.trace(scipy.linalg.sqrtm(c1 @ c2)).real
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(c1) + np.trace(c2) - 2 * shared)


def truth() -> dict[str, np.ndarray]:
    rows = [draw_labels(SEED, at, size=SIZE) for at in range(40)]
    has = {
        "cardiomegaly": np.array([bool(row["cardiomegaly"]) for row in rows]),
        "opacity": np.array([bool(row["opacity"]) for row in rows]),
        "effusion": np.array([bool(row["effusion_left"] or row["effusion_right"]) for row in rows]),
    }
    return {BASELINE: ~np.any(list(has.values()), axis=0), **has, "F": np.array([row["sex"] == "F" for row in rows])}


def test_the_matrix_is_that_of_all_features_at_once(found: Distances, features: np.ndarray) -> None:
    sets = {name: features[mask] for name, mask in truth().items() if name != "F"} | {ALL: features}
    assert found.sets == {name: len(some) for name, some in sets.items()}
    expected = [[frechet(a, b) for b in sets.values()] for a in sets.values()]
    np.testing.assert_allclose(found.matrix, expected, rtol=1e-3, atol=1e-3 * np.max(expected))
    assert np.array_equal(found.matrix, found.matrix.T)
    assert not found.matrix.diagonal().any()


def test_rows_are_to_the_baseline_and_pairs_to_their_other_half(found: Distances, features: np.ndarray) -> None:
    rows = {row.split: row for row in found.rows}
    assert list(rows) == [HALVES, "sex=F", BASELINE, "cardiomegaly", "opacity", "effusion", ALL]
    women = truth()["F"]
    assert rows["sex=F"].distance == pytest.approx(frechet(features[women], features[~women]), rel=1e-3)
    assert (rows["sex=F"].films, rows["sex=F"].to_films) == (women.sum(), (~women).sum())
    assert abs(rows[HALVES].films - rows[HALVES].to_films) <= 1
    for name in ("cardiomegaly", "opacity", "effusion", ALL):
        assert (rows[name].to, rows[name].distance) == (BASELINE, found.matrix[0, list(found.sets).index(name)])
    assert rows[BASELINE].distance == 0


def test_sets_of_one_size_have_it(source: str, network: FeatureNetwork) -> None:
    equal = measure_distances(source, network, ATTRIBUTES, films=10, seed=3)
    assert set(equal.sets.values()) == {10}
    assert "fewer films raise" not in "\n".join(distance_lines(equal))


def test_a_network_shown_larger_films_makes_them_small_itself(source: str, network: FeatureNetwork, found: Distances) -> None:
    large = measure_distances(source, network, ATTRIBUTES, size=SIZE)
    assert (large.size, found.size) == (SIZE, 16)
    np.testing.assert_allclose(large.matrix, found.matrix, rtol=1e-3)


def test_archives_and_other_films_are_held_against_all(
    source: str, small_codec: Path, small_films: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, other = tmp_path / "coded.zarr", tmp_path / "other.csv"
    encode_dataset(source, str(archive), str(small_codec), workers=0, metrics="none", quiet=True)
    other.write_text("\n".join(["path", *map(str, sorted(small_films.iterdir())[:15]), ""]))
    words = ["distances", source, "--features", str(classifier), "--attribute", "cardiomegaly", "--against", str(archive), str(other)]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sets"] == {BASELINE: 28, "cardiomegaly": 12, ALL: 40, "coded": 40, "other.csv": 15}
    rows = {row["split"]: row for row in told["rows"]}
    assert [(rows[name]["to"], rows[name]["to_films"]) for name in ("coded", "other.csv", ALL)] == [(ALL, 40), (ALL, 40), (BASELINE, 28)]
    assert rows["coded"]["distance"] > 0
    # the archive as the source: the same reconstructions, by the labels of its plan
    assert main(["distances", str(archive), *words[2:6], "--against", source, "--json"]) == 0
    back = {row["split"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert back["films.csv"]["distance"] == pytest.approx(rows["coded"]["distance"], rel=1e-6)
    assert back["cardiomegaly"]["films"] == 12


def test_films_that_cannot_be_read_are_counted(source: str, network: FeatureNetwork, tmp_path: Path) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"no film")
    manifest = tmp_path / "films.csv"
    head, *lines = Path(source).read_text().splitlines()
    ill = next(line for line in lines if line.split(",")[6] == "1")
    assert head.split(",")[6] == "cardiomegaly"
    manifest.write_text("\n".join([head, *lines, ",".join([str(torn), *ill.split(",")[1:]]), ""]))
    found = measure_distances(str(manifest), network, ["cardiomegaly"])
    assert (found.unread, dict(found.sets)) == (1, {BASELINE: 28, "cardiomegaly": 12, ALL: 40})
    assert "left out, films that cannot be read: 1" in distance_lines(found)
    manifest.write_text("\n".join(["path,mass", *(f"{tmp_path}/{at}.png,{at % 2}" for at in range(40)), ""]))
    with pytest.raises(SourceError, match=r"baseline too few can be read, 10 are needed: 0$"):
        measure_distances(str(manifest), network, ["mass"])


def test_requests_that_make_no_sense(source: str, network: FeatureNetwork) -> None:
    with pytest.raises(ConfigError, match="films must be 10 or more: 9"):
        measure_distances(source, network, ["cardiomegaly"], films=9)
    with pytest.raises(ConfigError, match=r"no attribute has 10 films or more .*: old: age=90$"):
        measure_distances(source, network, ["old: age=90"])
    with pytest.raises(ConfigError, match="sources to compare with must be different"):
        measure_distances(source, network, ["cardiomegaly"], against=[source, source])
