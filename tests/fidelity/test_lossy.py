"""Layers for a PSNR or a size: the promise is kept on any film, closely on a radiograph, with and without a prediction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import LayerError
from engine.fidelity.codestream import CODESTREAMS
from engine.fidelity.decode import decode_layer, layer_info
from engine.fidelity.encode import encode_film
from engine.fidelity.target import Target
from engine.fidelity.way import EXACT_WAY, Way, default_way
from engine.records import FilmSamples
from tests.fidelity.film_shapes import films, radiograph

WAYS = [Way("j2k"), Way("avif", 10), Way("jxl", 3)]


def psnr(film: FilmSamples, back: FilmSamples) -> float:
    error = np.mean((film.samples.astype(np.float64) - back.samples) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10((2**film.bits - 1) ** 2 / error))


@settings(max_examples=60, deadline=None)
@given(film=films(), way=st.sampled_from(WAYS), target=st.sampled_from([20.0, 35.0, 50.0, 75.0]))
def test_a_psnr_is_kept_on_any_film(film: FilmSamples, way: Way, target: float) -> None:
    layer = encode_film(film, Target("psnr", target), way)
    back = decode_layer(layer.data)
    assert psnr(film, back) == pytest.approx(layer.psnr)
    assert layer.psnr >= target
    assert layer.max_error == np.abs(film.samples.astype(np.int64) - back.samples).max()
    assert not layer.reason


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("decibels", [34.0, 38.5])
def test_a_psnr_is_met_closely(bits: int, decibels: float) -> None:
    target = Target("psnr", decibels)
    layer = encode_film(radiograph(256, 256, bits), target, default_way(target))
    assert layer.kind == "film"
    assert decibels <= layer.psnr <= decibels + 0.4


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.codec)
@pytest.mark.parametrize("most", [900, 3000])
def test_a_size_is_kept_and_used(way: Way, most: int) -> None:
    film = radiograph(256, 256, noise=0.003)
    layer = encode_film(film, Target("bytes", most), way)
    assert 0.85 * most <= len(layer.data) <= most
    assert psnr(film, decode_layer(layer.data)) == pytest.approx(layer.psnr)


def test_a_size_below_the_container_gets_the_best_there_is_or_fails() -> None:
    film = radiograph()
    layer = encode_film(film, Target("bytes", 40), Way("j2k"))
    assert layer.reason == f"needs {len(layer.data)} bytes at least: bytes=40"
    assert decode_layer(layer.data).samples.shape == film.samples.shape
    with pytest.raises(LayerError, match="bytes at least: bytes=40"):
        encode_film(film, Target("bytes", 40), Way("j2k"), strict=True)


def test_no_layer_costs_more_than_an_exact_one() -> None:
    film = radiograph(noise=0.02)
    exact = encode_film(film, Target("lossless"), EXACT_WAY)
    for decibels in (45, 55, 58.5, 70):
        layer = encode_film(film, Target("psnr", decibels), Way("j2k"))
        assert layer.psnr >= decibels
        assert len(layer.data) <= len(exact.data)


def test_no_target_no_layer() -> None:
    assert encode_film(radiograph(), Target("none"), Way("j2k")).data == b""


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.codec)
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (12, True)])
def test_a_residual_gives_the_film_with_its_prediction(way: Way, bits: int, signed: bool) -> None:
    film = radiograph(bits=bits, signed=signed)
    noise = np.random.default_rng(1).standard_normal(film.samples.shape)
    prediction = np.clip(film.to_gray() + 0.02 * noise, 0, 1).astype(np.float32)
    residual = Way(way.codec, way.effort, residual=True)
    layer = encode_film(film, Target("psnr", 36), residual, prediction=prediction)
    assert layer.kind == "residual"
    assert layer_info(layer.data).needs_prediction
    assert psnr(film, decode_layer(layer.data, prediction)) == pytest.approx(layer.psnr)
    assert layer.psnr >= 36
    with pytest.raises(LayerError, match="reconstruction of the film's code is needed"):
        decode_layer(layer.data)
    with pytest.raises(LayerError, match="another size than the film"):
        decode_layer(layer.data, prediction[1:])


def test_a_good_prediction_saves_bytes() -> None:
    film = radiograph(256, 256, noise=0.002)
    prediction = radiograph(256, 256, noise=0.002, seed=1).to_gray()  # the same but for its noise
    target = Target("psnr", 48)
    alone = encode_film(film, target, Way("j2k"))
    beside = encode_film(film, target, Way("j2k", residual=True), prediction=prediction)
    assert len(beside.data) < 0.7 * len(alone.data)


def test_bits_below_the_error_are_not_missed() -> None:
    """JPEG 2000 gets a coarser plane where the target allows it; the film must come back at full depth and brightness."""
    film = radiograph(256, 256, 16)
    layer = encode_film(film, Target("psnr", 38), Way("j2k"))
    back = decode_layer(layer.data).samples
    assert abs(back.mean() - film.samples.mean()) < 12  # of 65535
    assert len(np.unique(back)) > 2000
    assert layer_info(layer.data).plane_bits == 16


def test_codecs_keep_their_numbers() -> None:
    assert {name: codec.number for name, codec in CODESTREAMS.items()} == {"jxl": 1, "j2k": 2, "avif": 3}
