"""From an archive back: films, figures, the audit and the page, all with nothing but the archive itself."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine import encode_dataset, open_archive
from engine.archive.root import plan_beside
from engine.audit import audit_rows
from engine.errors import ArchiveError, CodecError, ConfigError, SourceError
from engine.pictures import colour_residual, safe_name
from engine.quality import ENCODER, GRAY, STORED, THUMBNAIL, measure
from engine.reconstruct import parse_rows, reconstruct, rows_of_ids
from engine.replay import Replay
from engine.report import RESIDUAL_RANGE, write_report


@pytest.fixture(scope="module")
def archive(small_films: Path, small_codec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The forty small films encoded, one of them replaced by a text."""
    folder = tmp_path_factory.mktemp("archive")
    films = folder / "films"
    shutil.copytree(small_films, films)
    (films / "film-005.png").write_text("no film")
    path = folder / "films.zarr"
    encode_dataset(str(films), str(path), str(small_codec), workers=0, film_size=64, shard_rows=16, quiet=True)
    return path


def films_of(archive: Path) -> Path:
    return archive.parent / "films"


def test_films_come_back_with_the_recorded_quality(archive: Path, tmp_path: Path) -> None:
    written = reconstruct(archive, tmp_path / "out", size=64)
    dataset = open_archive(archive)
    assert (written.films, written.without_code, written.size) == (39, 1, 64)
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == sorted({*map(str, dataset["sample_id"].to_numpy())} - {"film-005"})
    source = cv2.imread(str(films_of(archive) / "film-007.png"), cv2.IMREAD_UNCHANGED) / 255.0
    again = cv2.imread(str(tmp_path / "out" / "film-007.png"), cv2.IMREAD_UNCHANGED) / 255.0
    psnr = -10 * np.log10(np.mean((source - again) ** 2))
    assert psnr == pytest.approx(float(dataset["psnr"][7]), abs=0.05)  # the PNG is rounded to 8 bits


def test_the_codecs_own_resolution_is_the_default(archive: Path, tmp_path: Path) -> None:
    assert reconstruct(archive, tmp_path, rows=[3]).size == 32
    assert cv2.imread(str(tmp_path / "film-003.png"), cv2.IMREAD_UNCHANGED).shape == (32, 32)


@pytest.mark.parametrize(
    ("text", "rows"), [("0:3", [0, 1, 2]), (":2", [0, 1]), ("38:", [38, 39]), ("-2:", [38, 39]), ("7", [7]), ("-1", [39]), ("50:60", [])]
)
def test_rows_are_named_as_slices(text: str, rows: list[int]) -> None:
    assert list(parse_rows(text, 40)) == rows


def test_rows_and_ids_that_are_not_there_are_named(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rows must read like 0:100: first"):
        parse_rows("first", 40)
    (tmp_path / "ids").write_text("film-003\nfilm-999\n")
    with pytest.raises(ConfigError, match="1, for example film-999"):
        rows_of_ids(archive, tmp_path / "ids")
    (tmp_path / "ids").write_text("film-003\n\nfilm-001\n")
    assert rows_of_ids(archive, tmp_path / "ids") == [3, 1]


@pytest.mark.parametrize(
    ("sample_id", "name"),
    [
        ("a", "a.png"),
        ("a/b", "a/b.png"),
        ("../../etc/passwd", "etc/passwd-3754d6cb.png"),
        ("/root", "root-94a6b447.png"),
        ("..", "_-5ec1f7e7.png"),
    ],
)
def test_no_id_climbs_out_of_the_folder(sample_id: str, name: str) -> None:
    assert str(safe_name(sample_id)) == name


def test_quality_is_that_of_the_archive_and_floors_stand_beside_it(archive: Path) -> None:
    rows = list(measure(archive, str(films_of(archive))))
    dataset = open_archive(archive)
    by_method = {method: {row.sample_id: row for row in rows if row.method == method} for method in (STORED, ENCODER, THUMBNAIL, GRAY)}
    assert [len(found) for found in by_method.values()] == [39, 39, 39, 39]
    for at, name in enumerate(map(str, dataset["sample_id"].to_numpy())):
        if name != "film-005":
            assert by_method[STORED][name].psnr == pytest.approx(float(dataset["psnr"][at]), abs=1e-3)
            assert by_method[STORED][name].ssim == pytest.approx(float(dataset["ssim"][at]), abs=1e-4)
            assert by_method[GRAY][name].psnr < by_method[STORED][name].psnr
    assert by_method[ENCODER]["film-000"].psnr == pytest.approx(by_method[STORED]["film-000"].psnr, abs=1e-3)  # nothing was refined


def test_films_of_another_data_set_are_not_compared(archive: Path) -> None:
    with pytest.raises(SourceError, match="no film of the source has a code"):
        list(measure(archive, "phantom:2?size=64"))


def test_the_audit_finds_a_film_that_was_replaced(archive: Path, tmp_path: Path) -> None:
    assert audit_rows(archive, plan_beside(archive), count=40) == []
    film = films_of(archive) / "film-020.png"
    original = film.read_bytes()
    try:
        film.write_bytes((films_of(archive) / "film-021.png").read_bytes())
        assert audit_rows(archive, plan_beside(archive), count=40) == [
            ("film-020", "the source file is no longer the one that was encoded")
        ]
        film.unlink()
        [(name, what)] = audit_rows(archive, plan_beside(archive), count=40)
        assert (name, what) == ("film-020", "the film cannot be read again: file vanished")
    finally:
        film.write_bytes(original)
    with pytest.raises(ArchiveError, match="needs the plan"):
        audit_rows(archive, tmp_path / "no.plan.parquet")


def test_an_archive_without_its_codec_wants_the_right_one(
    small_films: Path, small_codec: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from trainers.presets.pca import PcaConfig
    from trainers.tasks.pca import fit_pca

    path = tmp_path / "films.zarr"
    encode_dataset(str(small_films), str(path), str(small_codec), workers=0, film_size=64, limit=8, quiet=True, embed_codec=False)
    with pytest.raises(CodecError, match="--codec"):
        Replay(path)
    other = tmp_path / "other"
    fit_pca("phantom:12?seed=6&size=64", other, PcaConfig(components=8, resolution=32))
    with pytest.raises(ArchiveError, match="did not make the archive"):
        Replay(path, codec=str(other))
    assert Replay(path, codec=str(small_codec)).codec.code_shape == (1, 8)


class Page(HTMLParser):
    """Collects what a browser would load from elsewhere, and how many pictures there are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.foreign: list[str] = []
        self.pictures = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.pictures += tag in ("img", "image")
        self.foreign += [str(value) for name, value in attrs if name in ("src", "href") and not str(value).startswith("data:")]


def test_the_page_is_whole_in_one_file(archive: Path, tmp_path: Path) -> None:
    table = write_report(archive, str(films_of(archive)), tmp_path / "page" / "index.html", films=4)
    page = Page((tmp_path / "page" / "index.html").read_text())
    assert (table["images"], table["ok"], table["failed"]) == (40, 39, 1)
    assert table["psnr"] == pytest.approx(float(open_archive(archive)["psnr"].mean()), rel=1e-5)
    assert page.foreign == []
    assert page.pictures == 4 * 3 + 39


def test_a_name_cannot_write_html(small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    for index in range(4):
        shutil.copy(small_films / f"film-{index:03d}.png", films / f"<script>alert({index})<.png")
    encode_dataset(str(films), str(tmp_path / "a.zarr"), str(small_codec), workers=0, film_size=64, quiet=True)
    write_report(tmp_path / "a.zarr", str(films), tmp_path / "index.html")
    assert "<script>" not in (tmp_path / "index.html").read_text()


def test_residual_colours_say_the_sign() -> None:
    white, red, blue = colour_residual(np.array([[0.0, 1.0, -1.0]], dtype=np.float32), full=RESIDUAL_RANGE)[0]
    assert white.tolist() == [255, 255, 255]
    assert red.tolist() == [0, 0, 255]  # BGR
    assert blue.tolist() == [255, 0, 0]
