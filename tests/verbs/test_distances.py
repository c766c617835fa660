"""`latentray distances` and `latentray metrics --features` as a user calls them: tables, files, a picture, and one line for bad input."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine import encode_dataset
from engine.cli import main
from engine.features import load_features
from engine.frechet import FrechetDistance
from engine.replay import Replay
from tests.labelled_films import ATTRIBUTES, write_manifest
from tests.small_classifier import write_classifier


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("distances") / "classifier")


@pytest.fixture(scope="module")
def source(small_films: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_manifest(small_films, tmp_path_factory.mktemp("labels") / "films.csv")


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_table_files_and_picture(source: str, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--attribute", *ATTRIBUTES, "--contrast", "sex=F"]
    code, out, err = call(capsys, "distances", source, "--features", str(classifier), *asked, "--out", str(tmp_path / "out"), "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    names = ["baseline", "cardiomegaly", "opacity", "effusion", "all films"]
    assert list(told["sets"]) == names
    assert len(told["features"]["sha256"]) == 64
    kept = json.loads((tmp_path / "out" / "distances.json").read_text())
    assert {name: kept[name] for name in told if name != "out"} == {name: told[name] for name in told if name != "out"}
    with (tmp_path / "out" / "distances.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["set", "films", *names]
    assert [row[:2] for row in rows[1:]] == [[name, str(count)] for name, count in told["sets"].items()]
    np.testing.assert_allclose([[float(cell) for cell in row[2:]] for row in rows[1:]], told["matrix"], rtol=1e-8)
    places = np.array([kept["map"]["places"][name] for name in names])
    apart = np.linalg.norm(places[:, None] - places, axis=-1)
    roots = np.sqrt(told["matrix"])
    assert np.sqrt(np.square(apart - roots).sum() / np.square(roots).sum()) == pytest.approx(kept["map"]["stress"], abs=1e-6)
    first = np.array(told["matrix"])[np.triu_indices(5, 1)].min()
    assert kept["tree"]["linkage"][0][2] == pytest.approx(first**0.5)
    assert sorted(kept["tree"]["order"]) == sorted(names)
    picture = cv2.imread(str(tmp_path / "out" / "distances.png"))
    assert picture.shape[1] > picture.shape[0] > 500
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_the_table_says_how_many_films_are_behind_it(
    small_films: Path, source: str, classifier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["--labels", source, "--attribute", "cardiomegaly", "nodule?"]
    code, out, _ = call(capsys, "distances", str(small_films), "--features", str(classifier), *labels)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["split", "films", "to", "films", "Fréchet"]
    assert [line.split("  ")[0] for line in lines[1:5]] == ["stratified halves", "baseline", "cardiomegaly", "all films"]
    assert lines[5].startswith("by the ")
    assert "fewer films raise a distance; --films " in lines[6]
    assert lines[7] == "left out, too few films: nodule?, 6"


@pytest.mark.parametrize(
    ("place", "words", "said"),
    [
        ("", ["--attribute", "hernia"], "the labels have no such column, there are patient_id, view, sex, .*: hernia$"),
        ("", ["--attribute", "opacity"], "labels say neither yes nor no of any film for this attribute: opacity$"),
        ("", ["--attribute", "mass", "--labels", "strangers.csv"], "none of the 40 ids is in the labels .*: film-000$"),
        ("phantom:1?seed=1&size=32", ["--attribute", "device"], r"a baseline of 10 films or more, .* --baseline: \d$"),
        ("nowhere", ["--attribute", "device"], "source does not exist or cannot be reached: nowhere$"),
        ("", ["--attribute", "device", "--features", "gone.pth"], "there is no such file or directory: gone.pth$"),
        ("", ["--attribute", "device", "--features", "strangers.csv"], "damaged, or holds more than plain tensors.*: strangers.csv$"),
        ("", ["--attribute", "device", "--size", "0"], "recipe.resolution must be 1 to 16384: 0$"),
        ("", ["--attribute", "device", "--out", "strangers.csv"], "cannot be written: .*: strangers.csv$"),
    ],
)
def test_bad_input_is_one_line(
    source: str,
    classifier: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("strangers.csv").write_text("id,mass\nx,1\ny,0\n")
    code, out, err = call(capsys, "distances", place or source, "--features", str(classifier), *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert re.search(said, err.strip())


def test_metrics_tell_how_far_both_sets_are_apart(
    small_films: Path, small_codec: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "films.zarr"
    encode_dataset(str(small_films), str(archive), str(small_codec), workers=0, metrics="mse", film_size=64, shard_rows=15, quiet=True)
    words = ["metrics", str(archive), "--source", str(small_films)]
    code, out, _ = call(capsys, *words, "--features", str(classifier), "--json")
    told = json.loads(out)["realism"]
    network = load_features(classifier)
    distance, replay = FrechetDistance(network.features, network.dim), Replay(archive)
    films = np.stack([cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(small_films.iterdir())]).astype(np.float32)
    distance.add_real(torch.from_numpy(films / 127.5 - 1)[:, None])
    distance.add_fake(replay.films(replay.latents(range(40)), 64) * 2 - 1)
    assert code == 0
    assert told["frechet"] == pytest.approx(distance.compute(), rel=1e-3)
    assert (told["films"], told["swd_films"], told["features"]) == (40, 40, network.told())
    assert 0 < told["swd"] < 1000
    code, out, _ = call(capsys, *words, "--features", str(classifier), "--limit", "5")
    assert (code, out.splitlines()[-1].split(":")[0]) == (0, "as sets")
    assert call(capsys, *words, "--limit", "5")[1].splitlines() == out.splitlines()[:-1]
    code, out, _ = call(capsys, *words, "--features", str(classifier), "--limit", "1")
    assert (code, out.splitlines()[-1]) == (0, "as sets: a Fréchet distance needs two films or more: 1")
    code, out, err = call(capsys, *words, "--features", "gone.pth")
    assert (code, out, err.count("\n")) == (2, "", 1)
