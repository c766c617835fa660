"""Ids that are no names of files, and texts that a terminal would obey: nothing leaves its folder, nothing takes another's place."""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine import encode_dataset
from engine.archive.reader import read_codec_files
from engine.archive.root import sealed
from engine.archive.writer import create_archive, finalise
from engine.encode.codec import codec_files, load_codec
from engine.errors import ArchiveError, SourceError
from engine.pictures import safe_name
from engine.reconstruct import reconstruct
from engine.records import ImageRef, Shard
from engine.source.plan import make_plan
from engine.verbs.output import emit, printable
from tests.archive import cases

CLIMBING = ("../../x", "/x", "x", "..", ".", "a/../../x", "a//b", "a/b", "C:\\x", "..\\x", "./x", "~/x", "-rf", "x.png", "ä" * 127)
ONLY_IN_ARCHIVES = ("a\0b", "x" * 300, "y/" * 40 + "z" * 300, "line\nbreak", "\x1b[2J", " ")


@pytest.fixture
def archive(small_codec: Path, tmp_path: Path) -> Path:
    """An archive as nobody but a forger makes one: ids that no source would be granted."""
    ids = (*CLIMBING, *ONLY_IN_ARCHIVES)
    path = tmp_path / "films.zarr"
    codec = load_codec(small_codec)
    spec = cases.make_spec(path, rows=len(ids), shard_rows=len(ids), plan=False, latent_dims=codec.code_dims, latent_shape=codec.code_shape)
    parts = {**spec.fingerprint_parts, "codec": {"name": codec.name, "digest": codec.digest}}
    parts |= {"film_size": 64, "latent": {"dtype": "f2"}, "limits": {}}
    create_archive(path, replace(spec, fingerprint_parts=parts), codec_files=codec_files(small_codec))
    shard = Shard(index=0, refs=tuple(ImageRef(row, name, "/x.png") for row, name in enumerate(ids)), digest="d", attempt=1)
    rows = cases.make_rows(shard, code=codec.code_shape)
    cases.publish(path, shard, rows)
    finalise(path)
    return path


def test_films_stay_below_their_folder(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    out.mkdir(parents=True)
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(out)}
    written = reconstruct(archive, out)
    films = [path for path in out.rglob("*") if path.is_file()]
    assert written.films == len(films) == len(CLIMBING) + len(ONLY_IN_ARCHIVES)
    assert all(path.suffix == ".png" and path.read_bytes().startswith(b"\x89PNG") for path in films)
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(out)} == before


def test_no_id_takes_the_place_of_another() -> None:
    names = [safe_name(name) for name in (*CLIMBING, *ONLY_IN_ARCHIVES)]
    assert len(set(names)) == len(names)
    for name in names:
        assert not name.is_absolute()
        assert ".." not in name.parts
        assert all(len(part.encode()) <= 255 and part.isprintable() and "\\" not in part for part in name.parts)


@pytest.mark.parametrize("name", ["film", "a/b", "ä", "x.y", "film 1", "1.2.840:7", "~/x", "x" * 251])
def test_an_id_that_is_a_name_stays_as_it_is(name: str) -> None:
    assert str(safe_name(name)) == f"{name}.png"


@pytest.mark.parametrize("name", ["a\0b", "\x1b[2J", "x" * 256, "a\u0085b"])
def test_no_source_is_granted_such_an_id(name: str, small_films: Path, tmp_path: Path) -> None:
    with (tmp_path / "films.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "id"], [next(small_films.iterdir()), name]])
    with pytest.raises(SourceError) as caught:
        make_plan(str(tmp_path / "films.csv"), tmp_path / "plan.parquet", shard_rows=4)
    assert printable(str(caught.value)).isprintable()


def test_a_manifest_may_name_films_outside_its_folder(small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    """It names what its user may read anyway; that is what a manifest is for."""
    (tmp_path / "here" / "deeper").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    film = next(small_films.iterdir())
    (tmp_path / "elsewhere" / "film.png").write_bytes(film.read_bytes())
    (tmp_path / "here" / "deeper" / "films.csv").write_text(f"path\n../../elsewhere/film.png\n{film}\n")
    settings = {"workers": 0, "film_size": 64, "quiet": True}
    summary = encode_dataset(str(tmp_path / "here/deeper/films.csv"), str(tmp_path / "films.zarr"), str(small_codec), **settings)
    assert (summary.ok, summary.failed) == (2, 0)


FORGED = ["../../x.safetensors", "..", "codec.json/../../x"]


@pytest.mark.parametrize("name", [*FORGED, "/tmp/x.safetensors"])
def test_no_codec_file_is_embedded_under_a_name_that_climbs(name: str, small_codec: Path, tmp_path: Path) -> None:
    path = tmp_path / "films.zarr"
    with pytest.raises(ArchiveError, match="a codec file of this name cannot be embedded"):
        create_archive(path, cases.make_spec(path, plan=False), codec_files={**codec_files(small_codec), name: b"stranger"})


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_archive_gives_its_codec_no_files_from_outside(name: str, small_codec: Path, tmp_path: Path) -> None:
    """Such an archive is refused before anything outside it is read; nothing is written."""
    path = tmp_path / "deep" / "films.zarr"
    create_archive(path, cases.make_spec(path, plan=False), codec_files=codec_files(small_codec))
    document = json.loads((path / "zarr.json").read_text())
    nodes = document["consolidated_metadata"]["metadata"]
    nodes[f"codec/{name}"] = nodes["codec/codec.json"]
    (path / "zarr.json").write_bytes(sealed(document))
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ArchiveError, match="a file of a name that no codec has, and is not read"):
        read_codec_files(path)
    assert set(tmp_path.rglob("*")) == before


def test_a_terminal_is_told_nothing_but_text(capsys: pytest.CaptureFixture[str]) -> None:
    emit(argparse.Namespace(json=False), "film \x1b]0;owned\x07\x1b[2J\u202e ä·é 漢\nnext\tcell", {})
    assert capsys.readouterr().out == "film \\x1b]0;owned\\x07\\x1b[2J\\u202e ä·é 漢\nnext\tcell\n"
    emit(argparse.Namespace(json=True), "", {"id": "\x1b[2J"})
    assert capsys.readouterr().out == '{"id": "\\u001b[2J"}\n'
