"""`bench archive`: every kind of file gives back the codes that it was given, and one that does not has no speed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.archives.archive_costs import look, weigh
from benchmarks.archives.archive_formats import FORMATS, LATENTRAY
from benchmarks.archives.archive_made import NUMBERS, draw_codes, shard_rows_for, write_side_by_side
from benchmarks.archives.archive_reads import Measured, rows
from benchmarks.archives.archive_turns import files_of, make_all, read, timed
from benchmarks.inputs import Options
from engine.archive.reader import open_archive
from engine.archive.verify import verify_archive

ROWS, SHARD_ROWS = 130, 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of all formats."""
    made = tmp_path_factory.mktemp("formats")
    found = make_all(names=list(FORMATS), folder=str(made), rows=ROWS, shard_rows=SHARD_ROWS)
    assert set(found["made"]) == set(FORMATS)
    assert all(2 * NUMBERS * 0.8 < each["bytes"] < 2 * NUMBERS * 1.3 for each in found["made"].values())
    return made


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_back_its_codes(folder: Path, name: str) -> None:
    codes, each = draw_codes(ROWS), FORMATS[name]
    path = str(folder / each.file)
    handle = each.open(path)
    assert np.prod(handle.shape) == codes.size
    assert handle.shape[0] == ROWS
    for row in (0, 63, 64, ROWS - 1):
        np.testing.assert_array_equal(np.asarray(each.row(handle, row)).reshape(-1), codes[row])
    everything = each.read(path)
    assert isinstance(everything, np.ndarray)
    np.testing.assert_array_equal(everything.reshape(ROWS, NUMBERS), codes)
    found = read(name=name, path=path, rows=ROWS, seconds=0.05)
    assert found["wrong rows"] == 0
    assert all(min(found[kind]) > 0 for kind in ("open", "random row", "full read"))


def test_the_series_of_codes_does_not_depend_on_how_many_are_drawn() -> None:
    codes = draw_codes(1500)
    np.testing.assert_array_equal(codes[:40], draw_codes(40))
    assert abs(float(codes.astype("f4").std()) - 1) < 0.01
    assert len(np.unique(codes, axis=0)) == 1500


def test_the_archive_is_one_as_encode_writes_it(folder: Path) -> None:
    path = folder / FORMATS[LATENTRAY].file
    assert [problem for problem in verify_archive(path) if not problem.is_note] == []
    assert open_archive(path)["latent"].encoding["chunks"] == (SHARD_ROWS, 1, NUMBERS)
    assert [shard_rows_for(films) for films in (1000, 112_120, 1_000_000)] == [16, 1024, 1024]
    looked = look(path=str(path), seconds=0.05)
    assert looked["ok"] == ROWS
    assert looked["problems"] == 0
    assert all(min(each) > 0 for each in looked["seconds"].values())
    found = weigh(path=str(path), rows=ROWS)
    assert 1 < found["latent"] / found["compressed"] < 1.05
    assert found["all"] > found["latent"]


def test_writers_side_by_side_make_one_archive(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{writers}.zarr") for writers in (1, 2)]
    found = [write_side_by_side(path=path, rows=200, shard_rows=64, writers=at + 1) for at, path in enumerate(paths)]
    assert found[0]["content"] == found[1]["content"]
    assert all(each["rate"] > 0 for each in found)
    assert [problem for problem in verify_archive(paths[1]) if not problem.is_note] == []


def test_a_format_with_other_codes_has_no_speed(tmp_path: Path) -> None:
    found = Measured(40, str(tmp_path), names=[LATENTRAY, "folder of .npy"])
    np.save(tmp_path / "npy" / "00000007_000.npy", np.zeros(NUMBERS, "f2"))
    for name in (LATENTRAY, "folder of .npy"):
        found.measure(name, seconds=0.05)
    good, bad = (found.row(name, "open") for name in (LATENTRAY, "folder of .npy"))
    assert good.values
    assert "not those that were written" in bad.failed
    assert "not those that were written" in found.wins("folder of .npy").failed
    assert not bad.values


def test_what_cannot_be_had_is_unavailable_with_the_reason() -> None:
    folder = FORMATS["folder of .npy"]
    assert folder.lacking(112_120) == ""
    assert "a million files" in folder.lacking(1_000_000)


def test_a_turn_that_takes_all_the_time_is_the_measurement(tmp_path: Path) -> None:
    seen: list[int] = []
    assert len(timed(seen.append, 3, 10.0)) == 3
    assert seen == [0, 1, 2, 3]
    assert len(timed(lambda turn: files_of(str(tmp_path)), 3, 0.0)) == 1


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    found = list(rows(Options(quick=True, scratch=tmp_path)))
    assert [row.reason for row in found if row.reason] == []
    assert len(found) == 3 * len(FORMATS) + len(FORMATS) - 2 + 5 + 2
    assert list(tmp_path.iterdir()) == []
