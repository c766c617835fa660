"""`direction`, `edit` and `neighbours` as a user calls them, on an archive of phantoms."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine import encode_dataset
from engine.archive.root import read_root
from engine.cli import main
from engine.errors import ConfigError
from engine.latents.codes import read_codes
from engine.latents.direction_file import read_direction
from engine.latents.edited import draw_strip, parse_alphas


@pytest.fixture(scope="module")
def archive(small_codec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("latents") / "films.zarr"
    encode_dataset("phantom:60?seed=21&size=32", str(path), str(small_codec), workers=0, metrics="none", shard_rows=16, quiet=True)
    return path


@pytest.fixture(scope="module")
def direction(archive: Path) -> Path:
    assert main(["direction", str(archive), "--attribute", "view=AP", "--method", "lda"]) == 0
    return archive.with_name("films.view=AP.direction")


def test_a_direction_is_found_judged_and_kept(archive: Path, direction: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = read_direction(direction)
    assert (found.attribute, found.method, found.digest) == ("view=AP", "lda", read_codes(archive).space.digest)
    words = ["--attribute", "portable: view=AP", "--labels", "phantom:60?seed=21&size=32", "--out", str(tmp_path / "d"), "--json"]
    assert main(["direction", str(archive), *words, "--method", "svm", "--independent-of", str(direction)]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["films"] == 60
    assert told["independent_of"] == ["view=AP"]
    assert abs(read_direction(tmp_path / "d").vector @ found.vector) < 1e-6


def test_pairs_need_a_second_archive(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["direction", str(archive), "--attribute", "a", "--method", "paired"]) == 2
    assert capsys.readouterr().err == "latentray direction: method paired, and no other, needs --edited: paired\n"
    assert main(["direction", str(archive), "--attribute", "nodule=blue"]) == 2
    assert "a direction needs 5 films or more with the attribute and without it: 0 and" in capsys.readouterr().err


def test_films_are_edited_into_strips_and_codes(archive: Path, direction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--direction", str(direction), "--alpha", "-2,0,2"]
    assert main(["edit", str(archive), *words, "--rows", "3:5", "--out", str(tmp_path / "out"), "--to", str(tmp_path / "e.zarr")]) == 0
    strip = cv2.imread(str(tmp_path / "out" / "phantom-000003.png"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["phantom-000003.png", "phantom-000004.png"]
    assert strip.shape[1] == 3 * 32 + 2
    edited, codes, vector = read_codes(tmp_path / "e.zarr"), read_codes(archive), read_direction(direction)
    assert list(edited.ids) == [f"phantom-00000{film}@{alpha}" for film in (3, 4) for alpha in ("-2", "0", "2")]
    expected = codes.values[3] + 2 * vector.spread * vector.vector
    assert edited.values[2] == pytest.approx(expected, abs=4e-3 * np.abs(expected).max())
    assert read_root(tmp_path / "e.zarr").parts["made"]["attribute"] == "view=AP"
    assert main(["edit", str(archive), *words]) == 0
    assert len(list((archive.parent / "films.view=AP-edits").iterdir())) == 8
    capsys.readouterr()
    assert main(["edit", str(archive), *words, "--to", str(tmp_path / "e.zarr")]) == 2
    assert "archive is there already" in capsys.readouterr().err


def test_a_strip_shows_what_changed() -> None:
    before = np.full((64, 64), 0.5)
    strip = draw_strip(before, [before, before + 0.25], ["a", "b"])
    below = strip[-64:]
    assert (below[:, :64] == 255).all()  # nothing changed: white
    assert below[:, -64:, 2].min() == 255
    assert below[:, -64:, :2].max() == 0  # brighter: red


@pytest.mark.parametrize(("text", "line"), [("1,x", "alpha must read like -3,0,3: 1,x"), ("1,1", "differ from one another: 1,1")])
def test_alphas_that_make_no_sense(text: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        parse_alphas(text)


def test_a_direction_of_another_codec_is_refused(
    archive: Path, direction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], small_films: Path
) -> None:
    from trainers.presets.pca import PcaConfig
    from trainers.tasks.pca import fit_pca

    fit_pca("phantom:12?seed=5&size=32", tmp_path / "codec", PcaConfig(components=8, resolution=32))
    other = tmp_path / "o.zarr"
    encode_dataset("phantom:4?seed=21&size=32", str(other), str(tmp_path / "codec"), workers=0, metrics="none", quiet=True)
    assert main(["edit", str(other), "--direction", str(direction)]) == 2
    assert "direction view=AP is of codec pca-8-at-32" in capsys.readouterr().err


def test_neighbours_are_listed_drawn_and_shown(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--id", "phantom-000007", "--count", "3", "--out", str(tmp_path / "n.png"), "--to", str(tmp_path / "n.zarr"), "--size", "64"]
    assert main(["neighbours", str(archive), *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    cosines = [each["cosine"] for each in told["nearest"]]
    assert cosines == sorted(cosines, reverse=True)
    assert "phantom-000007" not in {each["id"] for each in told["nearest"]}
    assert list(read_codes(tmp_path / "n.zarr").ids) == [f"phantom-000007@{number}" for number in (1, 2, 3)]
    assert cv2.imread(str(tmp_path / "n.png")).shape[1] == 4 * 65
    assert main(["neighbours", str(archive), "--id", "nobody"]) == 2
    assert capsys.readouterr().err == "latentray neighbours: the archive has no code of this id: nobody\n"
