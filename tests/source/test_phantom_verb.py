"""The verb `phantom`: a folder whose labels.csv is a manifest of its films; the same bytes again; clear refusals."""

from __future__ import annotations

import argparse
import csv
import hashlib
from pathlib import Path

import cv2
import pytest

from engine.errors import LatentrayError
from engine.source.listing import list_source
from engine.source.phantom import draw_labels, phantom_png
from engine.verbs import phantom


def call(out: Path, *words: str) -> None:
    parser = argparse.ArgumentParser()
    phantom.add_arguments(parser)
    parser.add_argument("--json", action="store_true")
    phantom.run(parser.parse_args(["--out", str(out), *words]))


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        call(tmp_path / name, "--count", "3", "--seed", "4", "--size", "64")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert set(digests(tmp_path / "one")) == {"labels.csv", *(f"phantom-{index:06d}.png" for index in range(3))}
    assert (tmp_path / "one" / "phantom-000002.png").read_bytes() == phantom_png(4, 2, size=64)


def test_labels_are_a_manifest_of_the_films(tmp_path: Path) -> None:
    call(tmp_path, "--count", "3", "--seed", "4", "--size", "64")
    with (tmp_path / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:2] == ["path", "id"]
    for index, row in enumerate(rows):
        assert (tmp_path / row["path"]).is_file()
        labels = draw_labels(4, index, size=64)
        assert list(row)[2:] == list(labels)
        assert float(row["cardiothoracic_ratio"]) == labels["cardiothoracic_ratio"]
        assert row["effusion_left"] == str(int(bool(labels["effusion_left"])))
        assert row["opacity_x0"] == ("" if labels["opacity_x0"] is None else str(labels["opacity_x0"]))
    listed = list(list_source(str(tmp_path / "labels.csv")).entries)
    assert [entry.given_id for entry in listed] == [row["id"] for row in rows]


def test_masks_and_sheet_are_not_films(tmp_path: Path) -> None:
    call(tmp_path / "films", "--count", "5", "--size", "64", "--masks", "--sheet", str(tmp_path / "sheet.png"))
    assert (tmp_path / "films" / ".masks" / "phantom-000000.heart.png").is_file()
    assert len(list(list_source(str(tmp_path / "films")).entries)) == 5
    assert cv2.imread(str(tmp_path / "sheet.png"), cv2.IMREAD_UNCHANGED).shape == (512, 1024)


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LatentrayError, match="--count must be 1 or more: 0"):
        call(tmp_path / "out", "--count", "0")
    with pytest.raises(LatentrayError, match="cannot write the films: "):
        call(tmp_path / "file", "--count", "1", "--size", "64")
    with pytest.raises(LatentrayError, match="size must be 16 to 16384: 5"):
        call(tmp_path / "out", "--count", "1", "--size", "5")
    with pytest.raises(LatentrayError, match="seed and index must be 0 or more"):
        call(tmp_path / "out", "--count", "1", "--seed", "-1")
    assert not (tmp_path / "out").exists()
