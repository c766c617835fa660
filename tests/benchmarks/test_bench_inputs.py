"""Which films a benchmark gets, and how a few of them are lined up as many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.inputs import Options, film_files, films_digest, line_up, spaced
from benchmarks.job.decode import expected_pixels
from engine.errors import ConfigError
from engine.source.plan import make_plan


def write_film(path: Path, *, side: int = 64, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)).save(path)
    return path


def test_films_are_lined_up_over_and_over_in_plan_order(tmp_path: Path) -> None:
    films = [write_film(tmp_path / "films" / f"{name}.png", seed=at) for at, name in enumerate("cab")]
    manifest = line_up(films, tmp_path / "line", count=8)
    plan = make_plan(str(manifest), tmp_path / "plan.parquet", shard_rows=3)
    refs = [ref for shard in plan.shards() for ref in shard.refs]
    assert len({ref.sample_id for ref in refs}) == 8
    assert [Path(ref.uri).resolve() for ref in refs] == [films[row % 3].resolve() for row in range(8)]


def test_the_folder_of_real_films_gives_those_of_one_size_and_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "films"
    wanted = [write_film(folder / "a.png"), write_film(folder / "d.png")]
    (folder / "manifest.csv").write_text("path,source,width\na.png,nih,1024\nb.png,nih,640\nc.png,cohen,1024\nd.png,nih,1024\n")
    monkeypatch.setenv("LATENTRAY_FILMS", str(folder))
    assert film_files(Options(scratch=tmp_path / "scratch")) == wanted


def test_a_variable_that_names_no_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTRAY_FILMS", str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match=r"LATENTRAY_FILMS names no folder: .*gone"):
        film_files(Options(scratch=tmp_path / "scratch"))


def test_phantoms_become_files_once(tmp_path: Path) -> None:
    options = Options(films="phantom:3?seed=5&size=64", quick=True, scratch=tmp_path)
    first = film_files(options)
    times = [path.stat().st_mtime_ns for path in first]
    for path in first:
        with Image.open(path) as film:
            assert film.size == (64, 64)
    assert film_files(options) == first
    assert [path.stat().st_mtime_ns for path in first] == times


def test_expected_pixels_are_block_averages_of_plain_films_only(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.png", side=64)
    with Image.open(path) as film:
        samples = np.asarray(film).astype(float)
        film.convert("RGB").save(tmp_path / "colour.png")
    expected = expected_pixels(path, 16)
    assert expected is not None
    assert expected[2, 3] == pytest.approx(samples[8:12, 12:16].mean() / 127.5 - 1)
    assert expected_pixels(path, 48) is None
    assert expected_pixels(tmp_path / "colour.png", 16) is None


def test_the_digest_of_films_is_of_their_bytes_in_their_order(tmp_path: Path) -> None:
    def digest_of(folder: Path) -> str:
        return films_digest(Options(films=str(folder), scratch=tmp_path / "scratch"))

    for folder, seeds in (("one", (1, 2)), ("same", (1, 2)), ("turned", (2, 1))):
        for at, seed in enumerate(seeds):
            write_film(tmp_path / folder / f"{at}.png", seed=seed)
    assert digest_of(tmp_path / "one") == digest_of(tmp_path / "same") != digest_of(tmp_path / "turned")
    of_phantoms = films_digest(Options(films="phantom:3?seed=5&size=64", scratch=tmp_path / "scratch"))
    assert len(of_phantoms) == 64
    assert of_phantoms != films_digest(Options(films="phantom:3?seed=6&size=64", scratch=tmp_path / "scratch"))
    assert films_digest(Options(films="codes.zarr", scratch=tmp_path / "scratch")) == ""


def test_settings_name_no_folder_of_this_machine() -> None:
    told = Options(films="/data/films", codec="/data/codecs/pca", nightly=True)
    assert told.settings() == {"films": "films", "codec": "pca", "classifier": None}
    assert Options(films="phantom:3?seed=5").settings()["films"] == "phantom:3?seed=5"
    assert [Options(quick=True).size, told.size, Options().size] == ["quick", "nightly", "whole"]


def test_films_are_taken_at_equal_distances() -> None:
    films = [Path(str(at)) for at in range(10)]
    assert [path.name for path in spaced(films, 4)] == ["0", "2", "5", "7"]
    assert spaced(films, 20) == films
