"""Every format gives exactly the pixels that were put in; whatever is not a film gives one clear reason."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from engine.config import DecodeConfig
from engine.decode.film import check_size
from engine.decode.formats import open_film, read_film, settle_libraries
from engine.decode.prepare import to_levels
from engine.errors import DecodeError
from engine.recipe import PixelRecipe
from tests.decode.film_files import bad_films, chunk, good_films, luma, png, ramp, rgb_of, saved, tiff, unit

CONFIG = DecodeConfig(max_bytes=16 * 2**20)
RECIPE = PixelRecipe(resolution=32)
GOOD = good_films()
BAD = bad_films()


@pytest.fixture(autouse=True)
def _settled() -> None:
    settle_libraries()


def gray_of(data: bytes, recipe: PixelRecipe = RECIPE) -> np.ndarray:
    film = read_film(open_film(data, CONFIG), recipe)
    return to_levels(film).astype(np.float64) / film.white


@pytest.mark.parametrize("name", GOOD)
def test_known_pixels_come_back(name: str) -> None:
    expected = GOOD[name]
    header = open_film(expected.data, CONFIG).header
    assert (header.height, header.width, header.bits) == (*expected.gray.shape, expected.bits)
    np.testing.assert_allclose(gray_of(expected.data), expected.gray, rtol=0, atol=expected.loss or 1e-6)


@pytest.mark.parametrize("name", ["png8", "png16", "tiff12", "jp2-16", "dicom12", "jpeg-ls"])
def test_gray_levels_are_the_exact_quotients(name: str) -> None:
    film = read_film(open_film(GOOD[name].data, CONFIG), RECIPE)
    levels = np.rint(GOOD[name].gray * (2 ** GOOD[name].bits - 1))
    if film.samples.dtype.kind == "u":
        np.testing.assert_array_equal(film.samples, levels)
        assert film.white == 2 ** GOOD[name].bits - 1
    else:
        np.testing.assert_array_equal(film.samples, (levels / (2 ** GOOD[name].bits - 1)).astype(np.float32))


@pytest.mark.parametrize("name", BAD)
def test_bad_file_gives_one_clear_reason(name: str) -> None:
    data, word = BAD[name]
    with pytest.raises(DecodeError) as caught:
        gray_of(data)
    reason = caught.value.reason
    assert word in reason
    assert reason
    assert "\n" not in reason
    assert "/" not in reason.replace("TIFF/", "")
    assert len(reason) < 240


def test_size_limit_is_a_setting() -> None:
    data = GOOD["png8"].data
    assert open_film(data, DecodeConfig(max_pixels=56 * 56)).header.height == 40
    with pytest.raises(DecodeError, match="max_pixels"):
        open_film(data, DecodeConfig(max_pixels=56 * 56 - 1))


@pytest.mark.parametrize(("height", "width"), [(65_536, 10), (10, 70_000)])
def test_a_side_that_no_archive_can_store_is_refused(height: int, width: int) -> None:
    with pytest.raises(DecodeError, match=f"side above 65535 pixels, more than an archive can store: {height}x{width}"):
        check_size(height, width, max_pixels=10**10)
    check_size(65_535, 65_535, max_pixels=10**10)


def test_bits_of_the_recipe_override_those_of_the_file() -> None:
    twelve = ramp(12)
    gray = gray_of(png(twelve, 16), PixelRecipe(resolution=32, bits=12))
    np.testing.assert_allclose(gray, unit(twelve, 12), atol=1e-6)
    beyond = gray_of(png(ramp(16), 16), PixelRecipe(resolution=32, bits=12))
    np.testing.assert_allclose(beyond, np.minimum(ramp(16) / 4095, 1), atol=1e-6)
    inverted = gray_of(tiff(4095 - twelve, photometric="miniswhite"), PixelRecipe(resolution=32, bits=12))
    np.testing.assert_allclose(inverted, unit(twelve, 12), atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_film_is_turned_upright(kind: str, orientation: int) -> None:
    image = Image.fromarray(ramp())
    exif = Image.Exif()
    exif[274] = orientation
    data = saved(image, kind, exif=exif, **({"quality": 100} if kind == "JPEG" else {}))
    from PIL import ImageOps

    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    header = open_film(data, CONFIG).header
    assert (header.height, header.width) == expected.shape
    np.testing.assert_allclose(gray_of(data) * 255, expected, atol=1e-4)


def test_cmyk_without_adobe_mark_is_not_inverted() -> None:
    data = GOOD["jpeg-cmyk"].data
    at = data.index(b"\xff\xee")
    (length,) = struct.unpack_from(">H", data, at + 2)
    plain = data[:at] + data[at + 2 + length :]
    with Image.open(io.BytesIO(data)) as image:
        stored = np.asarray(image).astype(np.float64)  # Pillow undoes Adobe's inversion, so these are inks for the marked file
    ink = 255 - stored
    expected = luma((255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255) / 255
    np.testing.assert_allclose(gray_of(plain), expected, atol=1e-4)


def test_colour_is_luma_without_rounding() -> None:
    rgb = rgb_of(ramp())
    np.testing.assert_allclose(gray_of(GOOD["png-rgb"].data), luma(rgb) / 255, atol=2e-7)


def test_format_is_told_by_content_and_pages_are_noted() -> None:
    assert open_film(GOOD["tiff-pages"].data, CONFIG).header.note == "first of 3 pages"
    assert open_film(GOOD["dicom-no-preamble"].data, CONFIG).header.format == "DICOM"


def test_only_ordinary_films_are_called_plain() -> None:
    plain = {name: open_film(film.data, CONFIG).header.plain for name, film in GOOD.items()}
    assert {name: kind for name, kind in plain.items() if kind} == {
        "png8": "gray8", "png16": "gray16", "png-rgb": "rgb8", "png-rgb16": "rgb16",
        "jpeg": "gray8", "jpeg-progressive": "gray8", "jpeg-rgb": "rgb8",
        "tiff8": "gray8", "tiff16": "gray16", "tiff16-big-endian": "gray16", "tiff16-lzw": "gray16", "tiff16-tiles": "gray16",
        "tiff-rgb": "rgb8", "tiff-rgb-planar": "rgb8", "tiff-pages": "gray8", "bigtiff": "gray16",
        "jp2-8": "gray8", "jp2-16": "gray16", "jp2-rgb": "rgb8",
    }  # fmt: skip


def test_progressive_scans_are_limited() -> None:
    data = GOOD["jpeg-progressive"].data
    scans = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(DecodeError, match="scans"):
        open_film(data[:-2] + scans * 500 + b"\xff\xd9", CONFIG)


def test_many_chunks_are_no_reason_to_wait() -> None:
    data = GOOD["png8"].data
    assert gray_of(data[:33] + chunk(b"tEXt", b"a\0b") * 20_000 + data[33:]).shape == (40, 56)


@pytest.mark.parametrize("name", GOOD)
def test_damage_never_gives_anything_but_a_film_or_a_reason(name: str) -> None:
    rng = np.random.default_rng(len(name))
    data = GOOD[name].data
    for _ in range(120):
        damaged = bytearray(data)
        how = rng.integers(4)
        at = int(rng.integers(min(len(data), 400 if rng.random() < 0.5 else len(data))))
        if how == 0:
            damaged[at] ^= 1 << int(rng.integers(8))
        elif how == 1:
            damaged[at : at + 4] = rng.bytes(4)
        elif how == 2:
            del damaged[at:]
        else:
            del damaged[at : at + int(rng.integers(1, 40))]
        outcome: np.ndarray | str
        try:
            outcome = gray_of(bytes(damaged))
        except DecodeError as error:
            outcome = error.reason
        if isinstance(outcome, str):
            assert "\n" not in outcome
            assert "Secret" not in outcome
        else:
            assert np.isfinite(outcome).all()
            assert outcome.min() >= 0
            assert outcome.max() <= 1
