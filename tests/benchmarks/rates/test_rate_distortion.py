"""Codes in their forms beside pictures of as many bytes: what rows hold, what is said of them, and the picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.inputs import DEMO, Options
from benchmarks.rates.rate_distortion import _must_reach, compare, plot, told
from benchmarks.rates.rate_distortion_words import winner
from benchmarks.rates.rated_films import FilmSet, rated_films
from benchmarks.rates.stored_forms import CODED, F2, F4, I1, ROUNDED, chunk_bytes, stored_forms
from benchmarks.report import Row, table
from engine.encode.codec import load_codec
from engine.metrics import PSNR_CAP
from tests.small_pggan import make_pggan_codec
from trainers.presets.pca import PcaConfig
from trainers.tasks.pca import fit_pca

SOURCE = "phantom:40?seed=3&size=64"
TARGETS = ("psnr=30", "lossless")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codecs")
    fit_pca("phantom:90?seed=4&size=32", folder / "pca", PcaConfig(components=70, resolution=32))
    make_pggan_codec(folder / "gan", resolution=32)
    (folder / "broken").mkdir()
    (folder / "broken" / "codec.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[FilmSet]:
    return rated_films(Options(films=SOURCE, scratch=tmp_path_factory.mktemp("scratch")), measured=4, size=64)


@pytest.fixture(scope="module")
def rows(place: Path, films: list[FilmSet]) -> list[Row]:
    codecs = {name: str(place / name) for name in ("pca", "gan", "broken")}
    return list(compare(codecs, films, eye=str(place / "pca"), sized=str(place / "pca"), budgets=(300,), targets=TARGETS))


def by_step(rows: list[Row]) -> dict[str, Row]:
    return {row.step.removeprefix("films: "): row for row in rows}


def test_films_are_parted_into_measured_ones_and_others(films: list[FilmSet]) -> None:
    (found,) = films
    assert found.measured == 4
    assert len(found.files) == len(set(found.files)) == 40
    assert list(found.marks) == ["cardiomegaly", "effusion"]
    assert found.no_marks == ""
    assert found.files[1].stem == "phantom-000010"  # at equal distances


def test_every_form_is_a_row_with_its_bytes_loss_quality_and_probe(place: Path, rows: list[Row]) -> None:
    found = by_step(rows)
    forms = {name: found[f"pca, {name}"] for name in (F4, F2, ROUNDED, I1, CODED)}
    sizes = {name: row.figures["bytes"] for name, row in forms.items()}
    assert sizes[CODED] < sizes[ROUNDED] < sizes[F2] < sizes[F4]
    assert sizes[I1] < sizes[F2]
    assert [row.settings["raw_bytes"] for row in forms.values()][:4] == [280, 140, 140, 74]
    assert forms[F4].figures["loss dB"] == 0
    assert all(row.figures["loss dB"] < 0.05 for row in forms.values())
    assert forms[CODED].values == forms[ROUNDED].values  # the same numbers
    assert all(
        len(row.values) == 4 and set(row.settings["probed"]) == {"films", "error", "cardiomegaly", "effusion"} for row in forms.values()
    )
    assert all(0.3 < row.quality["AUC"] <= 1 for row in forms.values())
    assert forms[CODED].settings["step"] == load_codec(place / "pca").spec.code.step > 0


def test_fewer_numbers_of_a_linear_codec_are_fewer_bytes_and_a_worse_film(rows: list[Row]) -> None:
    found = by_step(rows)
    few, all_of_them = found[f"pca, first 64, {CODED}"], found[f"pca, {CODED}"]
    assert few.figures["bytes"] < all_of_them.figures["bytes"]
    assert few.quality["mean PSNR dB"] < all_of_them.quality["mean PSNR dB"]
    assert f"pca, first 256, {CODED}" not in found  # it has 70


def test_what_cannot_be_measured_stays_with_its_reason(rows: list[Row]) -> None:
    found = by_step(rows)
    assert found["gan"].unavailable.startswith("no encoder")
    assert "lacks" in found["broken"].failed or "must" in found["broken"].failed or "missing" in found["broken"].failed
    assert found["AVIF, 300 bytes"].unavailable == "no setting makes files of 300 bytes or fewer"


def test_pictures_and_thumbnails_keep_to_their_bytes(rows: list[Row]) -> None:
    found = by_step(rows)
    for name in ("JPEG XL", "JPEG 2000", "WebP", "thumbnail"):
        row = found[f"{name}, 300 bytes"]
        assert row.figures["bytes"] <= 300
        assert row.quality["AUC"] > 0.3
        assert row.settings["side"] > 0
    assert found["WebP, 300 bytes"].quality["mean PSNR dB"] > found["thumbnail, 300 bytes"].quality["mean PSNR dB"]
    assert "AUC" in table(rows)


def test_code_and_layer_bring_the_film_back_as_promised(rows: list[Row]) -> None:
    found = by_step(rows)
    near, exact = (found[f"code and layer, {target}"] for target in TARGETS)
    assert min(near.values) >= 30
    assert set(exact.values) == {PSNR_CAP}
    assert found[near.settings["code"].removeprefix("films: ")].figures["bytes"] == near.settings["code_bytes"] > 0
    assert near.settings["code_bytes"] < near.figures["bytes"] < exact.figures["bytes"]
    lines = [line for line in told(rows) if "code and layer of" in line]
    assert lines[0].startswith(f"films, code and layer of psnr=30: {near.figures['bytes']:,.0f} bytes a film, ")
    assert lines[1].endswith("; exact")


def test_words_name_the_winners_of_the_rows(rows: list[Row]) -> None:
    lines = told(rows)
    best = winner([row for row in rows if row.values and row.figures["bytes"] <= 300], "mean PSNR dB")
    (line,) = [line for line in lines if "up to 300 bytes" in line]
    assert f"({best.quality['mean PSNR dB']:.1f} dB, {best.figures['bytes']:.0f} bytes)" in line
    (form,) = [line for line in lines if "stored form of pca:" in line]
    least = min((row for row in rows if row.figures.get("loss dB", 1) < 0.05), key=lambda row: row.figures["bytes"])
    assert f"stored form of pca: f2 rounded to {least.settings['step']:g} (" in form
    assert f"the smallest of all: {least.settings['form']} ({least.figures['bytes']:.0f} bytes, {least.figures['loss dB']:.3f} dB" in form
    new = replace(by_step(rows)[f"pca, {F4}"], step="films: new, f4", quality={"mean PSNR dB": 99.0}, figures={"bytes": 300.0})
    assert "PSNR new, f4 (99.0 dB, 300 bytes)" in told([*rows, new])[0]


def test_of_rows_as_good_the_smallest_wins(rows: list[Row]) -> None:
    row = by_step(rows)[f"pca, {F4}"]
    figures = [(30.0, 900.0), (29.97, 100.0), (29.9, 50.0), (20.0, 10.0)]
    made = [replace(row, quality={"mean PSNR dB": psnr}, figures={"bytes": size}) for psnr, size in figures]
    assert winner(made, "mean PSNR dB").figures["bytes"] == 100


def test_a_set_without_labels_says_why_there_is_no_area(tmp_path: Path, place: Path) -> None:
    sets = rated_films(Options(films="phantom:5?seed=5&size=64", scratch=tmp_path), measured=9, size=64)
    assert sets[0].measured == 2
    rows = list(compare({}, sets, eye=str(place / "pca"), sized=str(place / "pca"), budgets=(300,), targets=TARGETS))
    assert all("AUC" not in row.quality for row in rows)
    assert "films, no AUC: no attribute that 10 films have and 10 have not, of 5" in told(rows)


def test_the_coded_codes_of_the_shipped_codec_have_a_bar(rows: list[Row]) -> None:
    row = by_step(rows)[f"pca, {CODED}"]
    demo = replace(row, settings=row.settings | {"method": DEMO}, values=2 * row.values)
    (reached,) = _must_reach([row, demo])
    assert reached.verdict == "at most 400: met"
    assert reached.values == (row.figures["bytes"],)
    (lost,) = _must_reach([replace(demo, settings=demo.settings | {"loss_dB": 0.06})])
    assert lost.failed == "loses 0.060 dB, not less than 0.05"
    assert not lost.values
    (unsure,) = _must_reach([replace(demo, values=row.values)])
    assert unsure.unavailable == "what is lost is measured on 8 films or more, these are 4"


def test_the_plot_is_a_picture(rows: list[Row], tmp_path: Path) -> None:
    plot(rows, tmp_path / "new" / "plot.png")
    with Image.open(tmp_path / "new" / "plot.png") as picture:
        assert picture.width > 500
        assert picture.height > 500
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_chunks_are_those_of_an_archive() -> None:
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(64, 32)).astype(np.float32)
    whole, half = chunk_bytes(codes), chunk_bytes(codes.astype(np.float16))
    assert 0.8 * codes.nbytes < whole < 1.02 * codes.nbytes
    assert half < 0.55 * whole
    assert chunk_bytes(np.zeros((64, 32), dtype=np.int8) + 1) < 100
    assert chunk_bytes(np.round(codes * 4).astype(np.int8)) < half / 2


def test_codes_of_zeros_are_no_trouble() -> None:
    codes = np.zeros((3, 8), dtype=np.float32)
    assert all(not form.codes.any() for form in stored_forms(codes, step=0.0, tables=None))
