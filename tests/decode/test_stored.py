"""Stored samples: the integers of the file in every format, shown as the decoder shows them, and nothing called exact that is not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from engine.config import DecodeConfig
from engine.decode.stored import SampleReader
from engine.errors import DecodeError
from tests.decode.film_files import Array, dicom, good_films, png, ramp, tiff

GOOD = good_films()
COLOUR = {name for name in GOOD if "rgb" in name or "cmyk" in name} | {"png-palette"}


@pytest.fixture(scope="module")
def reader() -> Iterator[SampleReader]:
    with SampleReader(DecodeConfig(max_seconds=20)) as reader:
        yield reader


@pytest.mark.parametrize("name", GOOD)
def test_samples_show_the_film(name: str, reader: SampleReader) -> None:
    film, good = reader.read(GOOD[name].data), GOOD[name]
    assert film.samples.dtype.name in ("uint8", "uint16", "int16")
    assert film.samples.dtype.isnative
    assert bool(film.lossy) == (name in COLOUR)
    half_a_step = 0.5 / (film.white - film.black) if film.lossy else 0
    np.testing.assert_allclose(film.to_gray(), good.gray, atol=good.loss + half_a_step + 1e-6)


@pytest.mark.parametrize(
    ("stored", "bits"),
    [
        (ramp(8), 8),
        (ramp(10), 10),
        (ramp(12), 12),
        (ramp(15), 15),
        (ramp(16), 16),
        ((ramp(12).astype(np.int32) - 2048).astype(np.int16), 12),
        ((ramp(16).astype(np.int32) - 32768).astype(np.int16), 16),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else value.dtype.name,
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_dicom_keeps_what_is_stored(stored: Array, bits: int, photometric: str, reader: SampleReader) -> None:
    data = dicom(stored, bits=bits, PhotometricInterpretation=photometric, WindowCenter=100, WindowWidth=50)
    film = reader.read(data)
    np.testing.assert_array_equal(film.samples, stored)
    assert film.samples.dtype == stored.dtype
    assert film.bits == bits
    assert film.is_inverted == (photometric == "MONOCHROME1")
    assert sorted((film.black, film.white)) == [75, 124]


def test_rescale_and_window_say_what_is_black(reader: SampleReader) -> None:
    stored = ramp(12)
    cases: list[tuple[dict[str, object], tuple[float, float]]] = [
        ({}, (0, 4095)),
        ({"RescaleSlope": -1, "RescaleIntercept": 4095}, (4095, 0)),
        (
            {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 0, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"},
            (400, 600),
        ),
        ({"WindowCenter": 100, "WindowWidth": 50, "VOILUTFunction": "SIGMOID"}, (0, 4095)),
    ]
    for elements, expected in cases:
        film = reader.read(dicom(stored, bits=12, **elements))
        assert (film.black, film.white) == expected
        np.testing.assert_array_equal(film.samples, stored)


def test_bits_above_the_stored_ones_are_no_part_of_a_sample(reader: SampleReader) -> None:
    film = reader.read(dicom(ramp(12), bits=10))
    np.testing.assert_array_equal(film.samples, ramp(12) & 1023)
    assert (film.bits, film.white) == (10, 1023)


def test_gray_stored_as_colour_is_gray(reader: SampleReader) -> None:
    for bits in (8, 16):
        gray = ramp(bits)
        film = reader.read(tiff(np.stack([gray] * 3, axis=-1), photometric="rgb"))
        assert not film.lossy
        np.testing.assert_array_equal(film.samples, gray)
        assert film.samples.dtype == gray.dtype


def test_risky_files_are_read_by_the_guard_and_bad_ones_refused(reader: SampleReader) -> None:
    with pytest.raises(DecodeError, match="not an image format"):
        reader.read(b"not a film")
    with pytest.raises(DecodeError):
        reader.read(GOOD["jp2-16"].data[:-200])
    np.testing.assert_array_equal(reader.read(GOOD["dicom12-j2k"].data).samples, ramp(12))
    assert reader.read(png(ramp(4), 4)).bits == 8
