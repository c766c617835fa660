"""Properties of our own readers: a film within the limits or a DecodeError, nothing else, and little memory on the way to either."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine.config import DecodeConfig
from engine.decode import jpeg, jpeg2000, png
from engine.decode.film import Film
from engine.decode.formats import open_film, read_film, settle_libraries
from engine.decode.orientation import exif_orientation
from engine.errors import DecodeError
from engine.recipe import PixelRecipe
from tests.decode.film_files import chunk, dicom, good_films, ramp
from tests.faults.fuzz.cases import lenient

LIMITS = DecodeConfig(max_bytes=2**20, max_pixels=10_000)
RECIPE = PixelRecipe(resolution=16)
GOOD = {name: film.data for name, film in good_films().items()}
quickly = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])

_word = st.one_of(st.integers(0, 100), st.sampled_from([2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]))


@pytest.fixture(autouse=True)
def _settled() -> None:
    settle_libraries()


def one_line(reason: str) -> str:
    assert reason
    assert "\n" not in reason
    assert len(reason) < 240
    return reason


def outcome(data: bytes) -> Film | str:
    """The film, or the reason; any other exception fails the test. Pixels only of films that need no guard."""
    tracemalloc.start()
    try:
        sealed = open_film(data, LIMITS)
        header = sealed.header
        assert min(header.height, header.width) >= 1
        assert max(header.height, header.width) ** 2 <= LIMITS.max_pixels
        film = Film(np.zeros((1, 1)), 1.0) if header.is_risky else read_film(sealed, RECIPE)
        assert film.samples.size <= LIMITS.max_pixels
        return film
    except DecodeError as error:
        return one_line(error.reason)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8 * LIMITS.max_bytes + 16 * len(data)


@quickly
@given(
    st.sampled_from([png.SIGNATURE, jpeg.SIGNATURE, jpeg2000.SIGNATURE_FILE, b"II*\0", b"MM\0+", bytes(128) + b"DICM"]),
    st.binary(max_size=600),
)
def test_noise_behind_a_signature(signature: bytes, noise: bytes) -> None:
    outcome(signature + noise)


_kinds = st.one_of(
    st.sampled_from([b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"sBIT", b"eXIf", b"iCCP", b"IEND"]), st.binary(min_size=4, max_size=4)
)
_header = st.builds(struct.pack, st.just(">IIBBBBB"), _word, _word, *[st.sampled_from([0, 1, 2, 3, 4, 6, 8, 16, 255])] * 5)


@quickly
@given(_header, st.lists(st.tuples(_kinds, st.binary(max_size=60)), max_size=6))
def test_png_of_any_chunks(header: bytes, chunks: list[tuple[bytes, bytes]]) -> None:
    body = b"".join(chunk(kind, data) for kind, data in [(b"IHDR", header), *chunks, (b"IEND", b"")])
    outcome(png.SIGNATURE + body)


_entry = st.builds(
    struct.pack,
    st.just("<HHII"),
    st.sampled_from([254, 256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330, 339, 32997, 347]),
    st.integers(0, 18),
    _word,
    _word,
)


@quickly
@given(st.lists(_entry, max_size=14), _word, st.binary(max_size=100))
def test_tiff_of_any_tags(entries: list[bytes], following: int, tail: bytes) -> None:
    outcome(b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + struct.pack("<I", following) + tail)


_segment = st.tuples(
    st.one_of(st.sampled_from([0xC0, 0xC2, 0xC3, 0xF7, 0xDA, 0xE1, 0xEE, 0xDB, 0x01, 0xD0, 0xFF]), st.integers(0, 255)),
    _word,
    st.binary(max_size=40),
)


@quickly
@given(st.lists(_segment, max_size=6), st.booleans())
def test_jpeg_of_any_segments(segments: list[tuple[int, int, bytes]], is_honest: bool) -> None:
    parts = [struct.pack(">BBH", 0xFF, mark, len(body) + 2 if is_honest else length % 65536) + body for mark, length, body in segments]
    outcome(b"\xff\xd8" + b"".join(parts) + b"\xff\xd9")


@quickly
@given(
    st.lists(st.tuples(_word, st.sampled_from([b"jP  ", b"jp2h", b"jp2c", b"colr", b"pclr", b"free"]), st.binary(max_size=60)), max_size=5)
)
def test_jpeg2000_of_any_boxes(boxes: list[tuple[int, bytes, bytes]]) -> None:
    outcome(jpeg2000.SIGNATURE_FILE + b"".join(struct.pack(">I4s", length, kind) + body for length, kind, body in boxes))


_number = st.one_of(st.floats(width=32), st.sampled_from([0.0, 1e38, -1e38, 1e-38]))


@quickly
@given(
    rows=st.integers(0, 65535),
    stored=st.integers(0, 40),
    samples=st.integers(0, 5),
    slope=_number,
    intercept=_number,
    centre=_number,
    width=_number,
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", "NONE"]),
)
@example(rows=40, stored=8, samples=1, slope=1.0, intercept=float("nan"), centre=1.0, width=2.0, function="LINEAR")
def test_dicom_of_any_numbers(
    rows: int, stored: int, samples: int, slope: float, intercept: float, centre: float, width: float, function: str
) -> None:
    with lenient():
        data = dicom(
            ramp(),
            Rows=rows if rows % 3 else 40,
            BitsStored=stored if stored % 2 else 8,
            SamplesPerPixel=samples if samples % 2 else 1,
            RescaleSlope=f"{slope:.6g}",
            RescaleIntercept=f"{intercept:.6g}",
            WindowCenter=f"{centre:.6g}",
            WindowWidth=f"{width:.6g}",
            VOILUTFunction=function,
        )
    film = outcome(data)
    if isinstance(film, Film):
        assert film.samples.min() >= 0
        assert film.samples.max() <= film.white


@quickly
@given(st.binary(max_size=200), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_orientation_of_any_bytes(noise: bytes, start: bytes) -> None:
    assert exif_orientation(start + noise) in range(1, 9)


@quickly
@given(st.sampled_from(sorted(GOOD)), st.data())
def test_films_with_one_damage(name: str, draw: st.DataObject) -> None:
    data = GOOD[name]
    at = draw.draw(st.integers(0, len(data) - 1))
    outcome(data[:at] + draw.draw(st.binary(max_size=8)) + data[at + draw.draw(st.integers(0, 16)) :])
