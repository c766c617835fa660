"""`optimise-class` as a user calls it: the archive, the films and the table, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from engine.cli import main
from engine.errors import ConfigError
from engine.latents.codes import read_codes
from engine.verbs.optimise_class import parse_films
from tests.small_classifier import write_classifier


@pytest.fixture(scope="module")
def models(small_codec: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return ["--codec", str(small_codec), "--classifier", str(write_classifier(tmp_path_factory.mktemp("classifier")))]


def test_all_labels_become_one_archive_that_other_verbs_take(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["optimise-class", *models, "--label", "all", "--count", "3", "--lr", "0.1", "--seed", "5"]
    assert main([*words, "--out", "films", "--size", "24", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [each["label"] for each in told["labels"]] == ["effusion", "mass"]
    assert told["archive"] == "pca-8-at-32.all.zarr"
    codes = read_codes(tmp_path / told["archive"])
    assert len(codes) == sum(each["films"] for each in told["labels"])
    assert codes.ids[0] == "effusion-000000-1"
    assert cv2.imread("films/effusion-000000-1.png").shape == (24, 24, 3)
    assert (tmp_path / "films" / "labels.csv").read_text().startswith("path,id,patient,label,film,logit,threshold,goal,steps,reached\n")
    assert main(["verify", told["archive"]]) == 0
    assert main(["direction", told["archive"], "--attribute", "label=mass", "--method", "mean", "--out", "d"]) == 0
    capsys.readouterr()
    assert main(words) == 2
    assert capsys.readouterr().err == "latentray optimise-class: archive is there already, name another: pca-8-at-32.all.zarr\n"


def test_one_label_tells_what_became_of_its_starts(models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--label", "mass", "--count", "2", "--films", "1", "--steps", "300", "--lr", "0.1", "--to", str(tmp_path / "m.zarr")]
    assert main(["optimise-class", *models, *words]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("mass: 2 of 2 starts reached their threshold (100%) · steps ")
    assert " · 0 of 0 films around them below it · " in first
    assert last == f"{tmp_path / 'm.zarr'}: 2 codes of 2 patients"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--label", "gout"], "labels of classifier tiny are effusion, mass: gout"),
        (["--label", "mass", "--films", "3to6"], "films must read like 3-6: 3to6"),
        (["--label", "mass", "--lr", "0"], "lr must be a positive number: 0.0"),
        (["--label", "mass", "--truncation", "0"], "truncation must be 0.05 or more: 0.0"),
        (["--label", "mass", "--count", "0"], "count must be 1 or more: 0"),
        (["--label", "mass", "--device", "tpu"], "device must be cpu, cuda or cuda:N: tpu"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    assert main(["optimise-class", *models, "--count", "2", *words, "--to", str(tmp_path / "x.zarr")]) == 2
    assert capsys.readouterr().err == f"latentray optimise-class: {line}\n"
    assert not list(tmp_path.iterdir())


def test_films_of_a_patient_are_read() -> None:
    assert parse_films("3-6") == (3, 6)
    assert parse_films("4") == (4, 4)
    with pytest.raises(ConfigError, match="films must read like 3-6: -3"):
        parse_films("-3")
