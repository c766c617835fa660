"""`compare-classifiers` as a user calls it, on phantoms: the table, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.cli import main
from tests.small_classifier import write_classifier

PHANTOMS = "phantom:8?seed=8&size=16"
READ = ["--attribute", "effusion: effusion_left, effusion_right", "mass: nodule?"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifiers")
    write_classifier(folder / "real")
    write_classifier(folder / "made", seed=2)
    write_classifier(folder / "other", ("mass",))
    return folder


def test_labels_go_down_and_classifiers_across(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [PHANTOMS, "--attribute", "mass: nodule?", "--resamples", "20", "--csv", str(tmp_path / "t.csv")]
    assert main(["compare-classifiers", *words, "--classifier", f"Real={folders / 'real'}", f"Class generated={folders / 'other'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[-1] == "Class generated"
    assert [line.split()[0] for line in lines[1:4]] == ["mass", "average", "less"]
    assert lines[4] == "8 films, area under the ROC curve with its 95 % interval"
    assert lines[5] == "left out, not known to every classifier: effusion"
    assert lines[6] == f"{tmp_path / 't.csv'}: 4 rows"


def test_json_has_all(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["--classifier", f"a={folders / 'real'}", f"b={folders / 'real'}"]
    assert main(["compare-classifiers", PHANTOMS, *READ, "--resamples", "20", *names, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["labels"], told["films"], told["patients"]) == (["effusion", "mass"], 8, None)
    assert [cell["label"] for cell in told["cells"]] == ["effusion", "effusion", "mass", "mass", "average", "average"]
    assert told["cells"][1]["difference"] == {"value": 0, "low": 0, "high": 0}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--classifier", "real"], "classifier must read like NAME=DIR: real"),
        (["--classifier", "a={real}", "a={real}"], "classifiers must have names of their own: a"),
        (["--classifier", "a={real}/none"], "there is no such classifier directory"),
        (["--classifier", "a={real}", "--resamples", "0"], "resamples must be 1 or more: 0"),
        (["--classifier", "a={real}"], "the films have no column effusion, there are view, sex"),
    ],
)
def test_what_makes_no_sense_is_one_line(folders: Path, capsys: pytest.CaptureFixture[str], words: list[str], line: str) -> None:
    asked = [word.format(real=folders / "real") for word in words]
    assert main(["compare-classifiers", PHANTOMS, *asked, *([] if "no column" in line else READ)]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert line in told
