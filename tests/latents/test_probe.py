"""Probes of codes with a known answer, and of an archive beside another and thumbnails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.archive.root import plan_beside
from engine.classify.roc import auc
from engine.cli import main
from engine.errors import ArchiveError, ConfigError
from engine.latents.codes import read_codes
from engine.latents.codes_archive import write_codes
from engine.latents.probe import compare, probe
from engine.latents.probed import probe_archives, thumbnails
from engine.source.phantom import render_phantom


def test_a_probe_finds_what_is_there_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    marks = np.arange(200) % 4 == 0
    values = rng.normal(size=(200, 10))
    assert 0.35 < auc(probe(values, marks, seed=0), marks) < 0.65
    values[:, 3] += 2 * marks
    expected = 0.921  # of one number, two standard deviations apart
    assert auc(probe(values, marks, seed=0), marks) == pytest.approx(expected, abs=0.05)
    assert np.array_equal(probe(values, marks, seed=1), probe(values, marks, seed=1))
    with pytest.raises(ConfigError, match="5 films or more with the attribute and without it: 2 and 198"):
        probe(values, np.arange(200) < 2, seed=0)


def test_representations_are_compared_on_the_films_that_are_known() -> None:
    rng = np.random.default_rng(1)
    marks = rng.random(80) < 0.5
    good, bad = rng.normal(size=(2, 100, 4))
    good[10:90, 0] += 3 * marks
    found = compare({"good": good, "bad": bad}, {"a": (range(10, 90), marks)}, seed=0)
    assert [(row.what, row.numbers, row.films, row.films_with) for row in found] == [
        ("good", 4, 80, int(marks.sum())),
        ("bad", 4, 80, int(marks.sum())),
    ]
    assert found[0].low > found[1].high
    assert found[0].low < found[0].auc < found[0].high


def test_thumbnails_are_means_of_the_films(coded_phantoms: Path) -> None:
    codes = read_codes(coded_phantoms).take([4, 9])
    found = thumbnails(coded_phantoms, codes, 4)
    for row, index in zip(found, (4, 9), strict=True):
        film = torch.from_numpy(render_phantom(21, index, size=32).pixels.astype(np.float32))
        expected = film.reshape(4, 8, 4, 8).mean(dim=(1, 3)).flatten() / 127.5 - 1
        assert row == pytest.approx(expected.numpy(), abs=1.01 / 255)


def test_archives_are_compared_film_by_film(coded_phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = read_codes(coded_phantoms)
    other, noise = tmp_path / "noise.zarr", np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    write_codes(other, coded_phantoms, values=noise, ids=codes.ids[10:50], made={"by": "test"})
    words = ["--attribute", "cardiomegaly", "sex=F", "--against", str(other), "--json"]
    assert main(["probe", str(coded_phantoms), *words]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["films"] == 40
    whats = [row["what"] for row in told["figures"]]
    assert whats == ["codes of phantoms", "codes of noise", "thumbnail of 4x4"] * 2
    assert {row["films"] for row in told["figures"]} == {40}
    with pytest.raises(ArchiveError, match="thumbnails need the films"):
        probe_archives(other, ["cardiomegaly"], labels="phantom:60?seed=21&size=32")
    stranger = tmp_path / "stranger.zarr"
    write_codes(stranger, coded_phantoms, values=noise[:2], ids=["x", "y"], made={"by": "test"})
    with pytest.raises(ArchiveError, match="must share ids, these share none: phantoms, stranger"):
        probe_archives(coded_phantoms, ["cardiomegaly"], against=[stranger])
    assert plan_beside(other).exists()
