"""`latentray outliers` as a user calls it: ranking, table, pictures, and what it says of films that are not there."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import zarr
from sklearn.metrics import roc_auc_score

from engine import encode_dataset
from engine.archive.root import plan_beside
from engine.cli import main
from engine.latents.codes import read_codes
from engine.latents.codes_archive import write_codes
from engine.source.phantom import draw_labels, phantom_png

SEED, FILMS, SIZE = 31, 12, 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms as files, one of which is none."""
    folder = tmp_path_factory.mktemp("films")
    for index in range(FILMS):
        (folder / f"phantom-{index:06d}.png").write_bytes(phantom_png(SEED, index, size=SIZE))
    (folder / "torn.png").write_bytes(b"no film")
    return folder


@pytest.fixture(scope="module")
def archive(folder: Path, small_codec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("outliers") / "films.zarr"
    encode_dataset(str(folder), str(path), str(small_codec), workers=0, metrics="mse", film_size=SIZE, shard_rows=10, quiet=True)
    return path


def test_films_with_devices_come_first(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--csv", str(tmp_path / "all.csv"), "--out", str(tmp_path / "first"), "--count", "3"]
    assert main(["outliers", str(archive), *words]) == 0
    printed = capsys.readouterr().out.splitlines()
    with (tmp_path / "all.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert [int(row["rank"]) for row in rows] == list(range(1, FILMS + 1))
    truths = [draw_labels(SEED, int(row["id"][-6:])) for row in rows]
    kinds = ("pacemaker", "endotracheal_tube", "nasogastric_tube", "central_line", "ecg_leads")
    has_device = [any(truth[kind] for kind in kinds) for truth in truths]
    assert roc_auc_score(has_device, scores) >= 0.85
    assert rows[0]["id"] in printed[0]
    assert printed[3:] == [
        f"{archive}: {FILMS} films ranked",
        "left out: 1 without a code",
        f"{tmp_path / 'all.csv'}: all {FILMS} films",
        f"{tmp_path / 'first'}: 3 pictures",
    ]
    pictures = sorted((tmp_path / "first").iterdir())
    assert [path.name for path in pictures] == [f"{at}-{row['id']}.png" for at, row in enumerate(rows[:3], 1)]
    assert cv2.imread(str(pictures[0])).shape[1] == 3 * SIZE + 2 * SIZE // 64


def test_another_source_is_matched_by_id(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = f"phantom:5?seed={SEED}&size={SIZE}"
    assert main(["outliers", str(archive), "--source", source, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["films"], told["without_code"], told["without_film"], told["unread"]) == (5, 1, FILMS - 5, 0)
    codes = read_codes(archive)
    made = tmp_path / "made.zarr"
    write_codes(made, archive, values=codes.values[:5], ids=codes.ids[:5], made={"by": "test"})
    zarr.open_group(str(made), mode="r+")["latent"][2] = np.nan
    assert main(["outliers", str(made), "--source", source, "--json"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (again["films"], again["without_code"]) == (4, 1)
    assert codes.ids[2] not in {place["id"] for place in again["first"]}
    expected = {place["id"]: place["score"] for place in told["first"]}
    assert all(place["score"] == pytest.approx(expected[place["id"]], rel=0.01) for place in again["first"])
    assert main(["outliers", str(made)]) == 2
    assert (
        capsys.readouterr().err == f"latentray outliers: codes of this archive were made, there are no films to hold them against: {made}\n"
    )


def test_films_that_are_gone_are_told(archive: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "phantom-000004.png").rename(tmp_path / "aside.png")
    try:
        assert main(["outliers", str(archive), "--count", "1"]) == 0
        assert "left out: 1 that cannot be read\n" in capsys.readouterr().out
    finally:
        (tmp_path / "aside.png").rename(folder / "phantom-000004.png")
    plan = plan_beside(archive)
    plan.rename(tmp_path / "plan")
    try:
        assert main(["outliers", str(archive)]) == 2
        assert capsys.readouterr().err.endswith(f"the plan that lists them is not there; name them with --source: {plan}\n")
    finally:
        (tmp_path / "plan").rename(plan)


def test_words_that_make_no_sense(archive: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "other.png").write_bytes(phantom_png(1, 1, size=32))
    for words, line in (
        (["--source", str(tmp_path)], f"the source has none of the {FILMS} films of the archive, for example phantom-000000"),
        (["--margin", "0.6"], "margin must be 0 to 0.45 of a film's width: 0.6"),
        (["--count", "0"], "count must be 1 or more: 0"),
    ):
        assert main(["outliers", str(archive), *words]) == 2
        assert capsys.readouterr().err == f"latentray outliers: {line}\n"
