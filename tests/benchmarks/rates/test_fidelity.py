"""Layers beside plain codecs: files that reach their target and no more, the gate before any speed, the bars, and what is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.inputs import Options
from benchmarks.rates.fidelity import _must_reach, compare, gate, rows, told
from benchmarks.rates.fidelity_methods import FILM, NO_RESIDUAL, PLAIN, RESIDUAL, Method, layer_methods, plain_methods, reaches
from benchmarks.rates.picture_codecs import PictureCodec
from benchmarks.rates.plain_codecs import plain_codecs, smallest
from benchmarks.report import Row, table
from engine.errors import ConfigError, LayerError
from engine.fidelity.target import Target, parse_target
from engine.records import FilmSamples
from engine.source.phantom import render_phantom
from trainers.presets.pca import PcaConfig
from trainers.tasks.pca import fit_pca

PSNR, EXACT, BOUNDED = parse_target("psnr=40"), parse_target("lossless"), parse_target("max-error=2")
ALL_PLAIN = {"JPEG 2000", "AVIF", "JPEG XL effort 3", "WebP"}


@pytest.fixture(scope="module")
def films() -> list[FilmSamples]:
    return [FilmSamples(render_phantom(3, index, size=192).pixels, 8, 0.0, 255.0) for index in range(2)]


@pytest.fixture(scope="module")
def near(films: list[FilmSamples]) -> list[np.ndarray]:
    """Predictions that are right but for little noise, as of a codec far better than any: residuals of them are nearly nothing."""
    rng = np.random.default_rng(0)
    return [(film.to_gray() + rng.normal(0, 0.006, film.samples.shape)).clip(0, 1).astype(np.float32) for film in films]


@pytest.fixture(scope="module")
def found(films: list[FilmSamples], near: list[np.ndarray]) -> dict[str, Row]:
    rows = [row for target in (EXACT, PSNR) for row in compare(films, near, target, first=1, effort="quick", repeats=2)]
    return {row.step: row for row in rows}


@pytest.mark.parametrize("target", [PSNR, BOUNDED, EXACT], ids=str)
def test_every_plain_codec_reaches_its_target(target: Target, films: list[FilmSamples]) -> None:
    methods = [each for each in plain_methods(films, target, "quick") if isinstance(each, Method)]
    names = {each.name for each in methods}
    if target == EXACT:
        assert names == {"JPEG XL effort 3", "JPEG 2000", "JPEG-LS", "WebP", "PNG"}
    else:
        assert names >= ALL_PLAIN - ({"WebP"} if target == BOUNDED else set())  # its best quality need not keep to two grays
    assert ("JPEG-LS" in names) == (target != PSNR)
    for each in methods:
        assert each.kind == PLAIN
        assert all(reaches(target, film, each.decode(at)) for at, film in enumerate(films)), each.name


def test_the_smallest_file_is_of_the_lowest_setting_that_is_enough(films: list[FilmSamples]) -> None:
    codec = plain_codecs(PSNR, effort="quick")["JPEG 2000"]
    assert isinstance(codec, PictureCodec)
    film = films[0]
    best = smallest(codec, film.samples, lambda back: reaches(PSNR, film, back))
    assert best is not None
    file, setting = best
    assert reaches(PSNR, film, codec.read(file))
    at = list(codec.settings).index(setting)
    below = codec.write(film.samples, codec.settings[at - 25])  # half a dB
    assert len(below) < len(file)
    assert not reaches(PSNR, film, codec.read(below))
    assert smallest(codec, film.samples, lambda back: False) is None


def test_what_reaches_a_target_is_counted_to_the_last_gray(films: list[FilmSamples]) -> None:
    film = films[0]
    off = film.samples.copy()
    off[0, 0] += 3
    assert reaches(EXACT, film, film.samples.copy())
    assert not reaches(EXACT, film, off)
    assert not reaches(BOUNDED, film, off)
    assert reaches(Target("max-error", 3), film, off)
    assert not reaches(EXACT, film, film.samples.astype(np.uint16))
    assert not reaches(EXACT, film, film.samples[1:])
    psnr = 10 * np.log10(255**2 * off.size / 9)
    assert reaches(Target("psnr", psnr - 1e-6), film, off)
    assert not reaches(Target("psnr", psnr + 1e-6), film, off)


def test_rows_have_bytes_quality_speed_and_the_best_plain_codec(found: dict[str, Row], films: list[FilmSamples]) -> None:
    for target in (EXACT, PSNR):
        of_target = [row for row in found.values() if row.settings["target"] == str(target) and row.value_of == "film"]
        plain = {row.settings["method"]: row.figures["mean bytes"] for row in of_target if row.settings["kind"] == PLAIN}
        layer = found[f"{target}: {FILM}"]
        assert layer.ratio_to == min(plain, key=lambda name: plain[name])
        assert layer.ratio == pytest.approx(layer.figures["mean bytes"] / min(plain.values()))
        for row in of_target:
            assert len(row.values) == len(films)
            assert row.unit == "B"
            assert min(row.figures["encode films/s"], row.figures["decode films/s"]) > 0
            assert row.quality["mean PSNR dB"] >= (150 if target == EXACT else 40 - 1e-4)
            assert 0.95 < row.quality["MS-SSIM"] <= 1.0001
    assert found[f"lossless: {FILM}"].verdict == "at most 1.02: met"
    assert "films/s" in table(list(found.values()))


def test_an_exact_layer_has_no_residual_and_a_good_prediction_pays(found: dict[str, Row]) -> None:
    assert found[f"lossless: {RESIDUAL}"].unavailable == NO_RESIDUAL
    residual, film = found[f"psnr=40: {RESIDUAL}"], found[f"psnr=40: {FILM}"]
    assert residual.settings["way"]["residual"] is True
    assert residual.ratio_to == FILM
    assert residual.ratio is not None
    assert residual.ratio < 0.5
    lines = told(list(found.values()))
    share = 100 * (1 - residual.ratio)
    (line,) = [line for line in lines if line.startswith("psnr=40: the residual pays")]
    assert f"pays, {share:.1f} % fewer bytes than the film itself" in line
    assert line.endswith("smaller on 2 of 2 films")
    assert lines[-1] == "residuals pay at psnr=40"
    (line,) = [line for line in lines if line.startswith("lossless: the layer takes")]
    assert line.endswith(f"{found[f'lossless: {FILM}'].ratio:.3f}x the best plain codec (JPEG XL effort 3)")
    turned = [
        replace(row, settings=row.settings | {"kind": {FILM: RESIDUAL, RESIDUAL: FILM}.get(row.settings["kind"], PLAIN)})
        for row in (residual, film)
    ]
    assert told(turned)[-2].startswith(f"psnr=40: the residual does not pay, {100 / residual.ratio - 100:.1f} % more bytes")
    assert told(turned)[-1] == "residuals pay nowhere: tried at psnr=40"


def test_bytes_and_speed_have_bars(found: dict[str, Row], films: list[FilmSamples], near: list[np.ndarray]) -> None:
    beyond, speed = found["psnr=40: bytes above the best plain codec"], found[f"psnr=40: encode, {FILM}"]
    layer = found[f"psnr=40: {FILM}"]
    assert beyond.values[0] == pytest.approx(layer.figures["mean bytes"] * (1 - 1 / (layer.ratio or 0)))
    assert beyond.verdict.startswith("at most 64: ")
    assert speed.ratio_to == "one pass of JPEG 2000"
    assert speed.verdict.startswith("at least 0.7: ")
    assert len(speed.values) == 2
    plain = {each.name: each for each in plain_methods(films, PSNR, "quick") if isinstance(each, Method)}
    layers = {each.name: each for each in layer_methods(films, near, PSNR, first=1, effort="quick") if isinstance(each, Method)}
    rates = {f"encode {FILM}": [6.0, 7.0, 8.0], "encode JPEG 2000": [10.0, 10.0, 10.0]}
    best = replace(plain["JPEG 2000"], files=[b"-" * 100] * 2)
    small = replace(layers[FILM], files=[b"-" * 164] * 2)
    assert [row.verdict for row in _must_reach(small, best, plain["JPEG 2000"], rates)] == ["at most 64: met", "at least 0.7: met"]
    large, slow = replace(small, files=[b"-" * 165] * 2), {**rates, f"encode {FILM}": [6.0, 6.9, 8.0]}
    assert [row.verdict for row in _must_reach(large, best, plain["JPEG 2000"], slow)] == ["at most 64: missed", "at least 0.7: missed"]


def test_the_gate_comes_before_speed(films: list[FilmSamples], near: list[np.ndarray]) -> None:
    layer = next(each for each in layer_methods(films, near, EXACT, first=1, effort="quick") if isinstance(each, Method))
    assert [len(back) for back in gate(layer, films, EXACT)] == [192, 192]
    changed = [replace(films[0], samples=films[0].samples ^ np.uint8(1)), films[1]]
    assert gate(layer, changed, EXACT) == "1 of 2 films do not come back to lossless"

    def damaged(at: int) -> np.ndarray:
        raise LayerError("layer is damaged")

    assert gate(replace(layer, decode=damaged), films, EXACT) == "layer is damaged"
    rows = list(compare(films[:1], [None], BOUNDED, first=1, effort="quick", repeats=1))
    assert {row.step for row in rows if row.unavailable} >= {f"max-error=2: {RESIDUAL}"}
    far = list(compare(films[:1], near[:1], Target("psnr", 119), first=1, effort="quick", repeats=1))
    for row in far:
        assert (row.quality["mean PSNR dB"] >= 119) if row.values else row.unavailable
    assert any(row.unavailable == "no setting reaches it on 1 of 1 films" for row in far)


def test_a_quick_run_is_all_of_it(tmp_path: Path) -> None:
    fit_pca("phantom:20?seed=4&size=32", tmp_path / "pca", PcaConfig(components=8, resolution=32))
    options = Options(films="phantom:3?seed=5&size=96", codec=str(tmp_path / "pca"), quick=True, scratch=tmp_path / "scratch")
    made = list(rows(options))
    assert not [row.step for row in made if row.failed]
    assert {row.settings["target"] for row in made} == {"lossless", "psnr=40"}
    assert {len(row.values) for row in made if row.value_of == "film" and row.values} == {2}
    assert all(row.settings["codec"] for row in made)
    assert any(line.startswith("psnr=40: the residual") for line in told(made))


def test_films_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    cv2.imwrite(str(tmp_path / "films" / "deep.png"), np.full((64, 64), 999, dtype=np.uint16))
    with pytest.raises(ConfigError, match=r"films of 8 bits, this has 16: deep\.png"):
        list(rows(Options(films=str(tmp_path / "films"), quick=True, scratch=tmp_path / "scratch")))
    (tmp_path / "films" / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    with pytest.raises(ConfigError, match=r"each must be readable: deep\.png"):
        list(rows(Options(films=str(tmp_path / "films"), quick=True, scratch=tmp_path / "scratch")))
