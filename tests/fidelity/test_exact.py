"""Lossless and near-lossless layers: every sample, every depth, every shape, and the largest error as promised."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import LayerError
from engine.fidelity.decode import decode_layer, layer_info
from engine.fidelity.encode import encode_film
from engine.fidelity.target import Target
from engine.fidelity.way import Way
from engine.records import FilmSamples
from tests.fidelity.film_shapes import films, radiograph

LOSSLESS = Target("lossless")
WAYS = [Way("jxl", 3), Way("j2k"), Way("avif", 10), Way("avif", 10, start=40)]


def assert_same(back: FilmSamples, film: FilmSamples) -> None:
    np.testing.assert_array_equal(back.samples, film.samples)
    assert back.samples.dtype == film.samples.dtype
    assert (back.bits, back.black, back.white) == (film.bits, film.black, film.white)


@settings(max_examples=120, deadline=None)
@given(film=films(), way=st.sampled_from(WAYS))
def test_lossless_is_exact(film: FilmSamples, way: Way) -> None:
    layer = encode_film(film, LOSSLESS, way)
    assert (layer.kind, layer.psnr, layer.max_error, layer.reason) == ("lossless", float("inf"), 0, "")
    assert_same(decode_layer(layer.data), film)


@settings(max_examples=80, deadline=None)
@given(film=films(), way=st.sampled_from(WAYS), largest=st.integers(1, 70))
def test_largest_error_is_kept(film: FilmSamples, way: Way, largest: int) -> None:
    layer = encode_film(film, Target("max-error", largest), way)
    back = decode_layer(layer.data)
    difference = np.abs(back.samples.astype(np.int64) - film.samples)
    assert difference.max() == layer.max_error <= largest
    assert (back.samples.dtype, back.bits) == (film.samples.dtype, film.bits)


@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
def test_errors_that_are_allowed_save_bytes(bits: int) -> None:
    film, way = radiograph(bits=bits), Way("jxl", 3)
    sizes = [len(encode_film(film, target, way).data) for target in (LOSSLESS, Target("max-error", 1), Target("max-error", 4))]
    assert sizes[0] > 1.05 * sizes[1] > 1.05 * sizes[2]


def test_values_that_never_occur_cost_nothing() -> None:
    twelve = radiograph(bits=12)
    scaled = replace(twelve, samples=twelve.samples * np.uint16(16), bits=16, white=65535.0)
    sizes = [len(encode_film(film, LOSSLESS, Way("jxl", 3)).data) for film in (twelve, scaled)]
    assert sizes[1] <= 1.02 * sizes[0] + 8


def test_a_lossless_layer_is_hardly_larger_than_its_codestream() -> None:
    import imagecodecs

    film = radiograph(bits=8, height=256, width=256)
    plain = len(imagecodecs.jpegxl_encode(film.samples, lossless=True, effort=7, usecontainer=False))
    assert len(encode_film(film, LOSSLESS, Way("jxl", 7)).data) <= plain + 70


@pytest.mark.parametrize("way", [Way("jxl", 3), Way("j2k"), Way("avif", 10, start=20)], ids=lambda way: way.codec)
def test_same_film_same_bytes_whatever_is_coded_beside_it(way: Way) -> None:
    film = radiograph(256, 256)
    for target in (LOSSLESS, Target("max-error", 2), Target("psnr", 38), Target("bytes", 2000)):
        alone = encode_film(film, target, way).data
        with ThreadPoolExecutor(4) as pool:
            beside = [pool.submit(encode_film, each, target, way) for each in [film, radiograph(200, 300), film, film]]
        assert {beside[index].result().data for index in (0, 2, 3)} == {alone}


def test_a_film_that_is_not_the_files_own_is_no_lossless_one() -> None:
    film = replace(radiograph(), lossy="the film is in colour, and its luma is rounded")
    layer = encode_film(film, LOSSLESS, Way("jxl", 3))
    assert layer.reason == "lossless is not possible: the film is in colour, and its luma is rounded"
    assert decode_layer(layer.data).lossy
    np.testing.assert_array_equal(decode_layer(layer.data).samples, film.samples)
    with pytest.raises(LayerError, match="lossless is not possible: the film is in colour"):
        encode_film(film, LOSSLESS, Way("jxl", 3), strict=True)


def test_header_says_what_the_layer_is() -> None:
    info = layer_info(encode_film(radiograph(bits=12, signed=True), LOSSLESS, Way("jxl", 3)).data)
    assert (info.kind, info.codec, info.height, info.width, info.bits, info.dtype) == ("lossless", "jxl", 96, 80, 12, "<i2")
    assert not info.needs_prediction
    assert (info.black, info.white) == (-2048, 2047)


def test_samples_that_are_none_are_our_mistake() -> None:
    with pytest.raises(ValueError, match="not \\[H, W\\]"):
        encode_film(FilmSamples(np.zeros((4, 4), np.float32), 8, 0, 255), LOSSLESS, Way("jxl", 3))
