"""Pictures of at most so many bytes: they fit, they use what they have, and what cannot be had says so."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.rates.picture_codecs import Gray, PictureCodec, best_side, fit_films, picture_codecs, shrink, thumbnails
from engine.source.phantom import render_phantom


@pytest.fixture(scope="module")
def films() -> list[Gray]:
    return [render_phantom(3, index, size=192).pixels for index in range(2)]


@pytest.mark.parametrize("name", ["AVIF", "JPEG XL", "JPEG 2000", "WebP"])
def test_files_fit_into_their_bytes_and_more_bytes_are_better(name: str, films: list[Gray]) -> None:
    codec = picture_codecs()[name]
    assert isinstance(codec, PictureCodec)
    errors = []
    for most in (700, 1400):
        fitted = fit_films(codec, films, side=96, most=most)
        assert fitted is not None
        assert all(0.8 * most < size <= most for size in fitted.num_bytes)
        assert all(picture.shape == (96, 96) and picture.dtype == np.uint8 for picture in fitted.pictures)
        errors.append(np.mean([np.square(p - shrink(f, 96).astype(float)).mean() for p, f in zip(fitted.pictures, films, strict=True)]))
    assert errors[1] < errors[0] < 200


def test_bisection_finds_the_best_setting_that_fits(films: list[Gray]) -> None:
    written: list[float] = []

    def write(picture: Gray, setting: float) -> bytes:
        written.append(setting)
        return bytes(int(setting) * 10)

    codec = PictureCodec(name="tens", settings=range(101), write=write, read=lambda file: films[0])
    assert [len(codec.fit(films[0], most) or b"none") for most in (0, 9, 55, 999, 5000)] == [4, 4, 50, 990, 1000]
    assert len(written) <= 5 * 7


def test_a_container_that_is_too_large_makes_no_row(films: list[Gray]) -> None:
    codec = picture_codecs()["AVIF"]
    assert isinstance(codec, PictureCodec)
    assert fit_films(codec, films, side=48, most=100, smaller=True) is None
    assert best_side(codec, films, most=100) is None


def test_a_film_that_does_not_fit_is_shrunk_further(films: list[Gray]) -> None:
    codec = picture_codecs()["AVIF"]
    assert isinstance(codec, PictureCodec)
    noise = np.random.default_rng(0).integers(0, 256, (192, 192), dtype=np.uint8)
    assert fit_films(codec, [films[0], noise], side=192, most=700) is None
    fitted = fit_films(codec, [films[0], noise], side=192, most=700, smaller=True)
    assert fitted is not None
    assert len(fitted.pictures[0]) == 192 > len(fitted.pictures[1])


def test_the_best_side_grows_with_the_bytes(films: list[Gray]) -> None:
    codec = picture_codecs()["WebP"]
    assert isinstance(codec, PictureCodec)
    few, many = (best_side(codec, films, most=most, sides=(48, 96, 192)) for most in (128, 4096))
    assert few is not None
    assert many is not None
    assert few < many


def test_thumbnails_have_a_byte_a_pixel(films: list[Gray]) -> None:
    small = thumbnails(films, most=300)
    assert small.num_bytes == [17 * 17] * 2
    assert small.side == 17
    assert np.abs(small.pictures[0].mean() - films[0].mean()) < 1
