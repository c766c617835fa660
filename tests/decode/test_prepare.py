"""The recipe after decoding: levels, equalisation, square, resize; and the same on tensors."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from engine.decode.film import Film
from engine.decode.prepare import equalise, prepare
from engine.decode.resample import prepare_tensor
from engine.recipe import PixelRecipe


def noise(height: int, width: int, bits: int = 8) -> np.ndarray:
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(height * width).integers(0, 2**bits, (height, width), dtype=dtype)


def prepared(samples: np.ndarray, white: float, recipe: PixelRecipe) -> np.ndarray:
    out = np.full((recipe.resolution, recipe.resolution), np.nan, dtype=np.float32)
    prepare(Film(samples, white), recipe, out)
    return out


def test_black_and_white_are_exactly_minus_one_and_one() -> None:
    for bits in (8, 12, 16):
        samples = np.array([[0, 2**bits - 1]], dtype=np.uint16).repeat(2, axis=0)
        np.testing.assert_array_equal(prepared(samples, 2**bits - 1, PixelRecipe(resolution=2)), [[-1, 1], [-1, 1]])


def test_equal_size_keeps_every_level() -> None:
    samples = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    out = prepared(samples, 65535, PixelRecipe(resolution=256))
    np.testing.assert_array_equal(out, (samples.astype(np.float64) / 32767.5).astype(np.float32) - np.float32(1))
    assert len(np.unique(out)) > 65000  # all but a few that float32 cannot tell apart next to -1


@pytest.mark.parametrize(("height", "width"), [(96, 64), (64, 97), (33, 70)])
def test_square(height: int, width: int) -> None:
    samples, side, short = noise(height, width), max(height, width), min(height, width)
    padded = np.zeros((side, side), dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    padded[top : top + height, left : left + width] = samples
    cropped = samples[(height - short) // 2 :, (width - short) // 2 :][:short, :short]
    np.testing.assert_array_equal(prepared(samples, 255, PixelRecipe(resolution=side)), prepared(padded, 255, PixelRecipe(resolution=side)))
    crop = PixelRecipe(resolution=short, square="crop")
    np.testing.assert_array_equal(prepared(samples, 255, crop), prepared(cropped, 255, crop))
    stretched = cv2.resize(samples.astype(np.float32), (16, 16), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(prepared(samples, 255, PixelRecipe(resolution=16, square="stretch")), stretched / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("size", [16, 40, 64, 150])
def test_area_is_that_of_opencv(size: int) -> None:
    samples = noise(64, 64)
    expected = cv2.resize(samples.astype(np.float32) / 255, (size, size), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(prepared(samples, 255, PixelRecipe(resolution=size)), expected * 2 - 1, atol=1e-6)


@pytest.mark.parametrize("size", [16, 40, 150])
def test_lanczos_is_that_of_pillow(size: int) -> None:
    samples = noise(64, 64, bits=16)
    image = Image.fromarray(samples.astype(np.float32) / np.float32(65535))
    expected = np.clip(np.asarray(image.resize((size, size), Image.Resampling.LANCZOS)), 0, 1)
    out = prepared(samples, 65535, PixelRecipe(resolution=size, resize="lanczos"))
    np.testing.assert_allclose(out, expected * 2 - 1, atol=2e-6)
    assert out.min() >= -1
    assert out.max() <= 1


def test_a_side_that_shrinks_is_averaged_even_when_the_other_grows() -> None:
    samples = np.tile(np.array([[0, 255]], dtype=np.uint8), (8, 200))  # a grating that plain interpolation would alias
    out = prepared(samples, 255, PixelRecipe(resolution=40, square="stretch"))
    np.testing.assert_allclose(out, 0, atol=1e-6)


def test_equalisation_is_the_classic_one_on_8_bits_and_keeps_deeper_grades() -> None:
    film = (noise(80, 80) // 3 + 20).astype(np.uint8)
    ours = equalise(film.astype(np.float32) / 255) * 255
    assert np.abs(ours - cv2.equalizeHist(film)).max() <= 0.5001  # that one rounds
    deep = np.sort(noise(80, 80, bits=16).ravel()).reshape(80, 80)
    levels = equalise(deep.astype(np.float32) / 65535).ravel()
    assert (np.diff(levels) >= 0).all()
    assert len(np.unique(levels)) > 5000
    flat = np.full((5, 5), 0.3, dtype=np.float32)
    np.testing.assert_array_equal(equalise(flat), flat)


def test_the_films_own_range_is_stretched() -> None:
    recipe = PixelRecipe(resolution=2, intensity="minmax")
    samples = np.array([[100, 300], [200, 300]], dtype=np.uint16)
    np.testing.assert_array_equal(prepared(samples, 4095, recipe), [[-1, 1], [0, 1]])
    np.testing.assert_array_equal(prepared(samples, 200, recipe), [[-1, 1], [1, 1]])  # cut first: what is beyond white is white
    np.testing.assert_array_equal(prepared(np.full((3, 3), 70, np.uint8), 255, recipe), np.full((2, 2), -1))


def test_the_range_is_that_of_the_whole_film_before_it_is_made_square() -> None:
    samples = (noise(40, 24) // 2 + 60).astype(np.uint8)
    samples[0, 0] = 10  # which cropping takes away
    unit = (samples.astype(np.float64) - samples.min()) / (int(samples.max()) - int(samples.min()))
    crop = PixelRecipe(resolution=24, square="crop", intensity="minmax")
    np.testing.assert_allclose(prepared(samples, 255, crop), unit[8:32] * 2 - 1, atol=1e-6)
    padded = prepared(samples, 255, PixelRecipe(resolution=40, intensity="minmax"))
    np.testing.assert_array_equal(padded[:, :8], -1)  # black, as the darkest sample is
    np.testing.assert_allclose(padded[:, 8:32], unit * 2 - 1, atol=1e-6)


def test_recipes_of_archives_begun_before_there_was_a_choice_of_range_stay_as_they_were() -> None:
    assert "intensity" not in PixelRecipe(resolution=8).to_json()
    assert PixelRecipe(resolution=8, intensity="minmax").to_json()["intensity"] == "minmax"


def test_levels_beyond_white_are_cut() -> None:
    samples = np.array([[0, 4095], [5000, 65535]], dtype=np.uint16)
    np.testing.assert_array_equal(prepared(samples, 4095, PixelRecipe(resolution=2)), [[-1, 1], [1, 1]])


@pytest.mark.parametrize("resize", ["area", "lanczos"])
@pytest.mark.parametrize("square", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("equalisation", ["none", "histogram"])
@pytest.mark.parametrize("intensity", ["full", "minmax"])
@pytest.mark.parametrize(("height", "width", "size"), [(128, 128, 32), (90, 130, 64), (70, 53, 96), (31, 200, 50), (1, 1, 5), (64, 64, 64)])
def test_tensors_give_the_same_pixels(
    resize: str, square: str, equalisation: str, intensity: str, height: int, width: int, size: int
) -> None:
    choices = {"resize": resize, "square": square, "equalise": equalisation, "intensity": intensity}
    recipe = PixelRecipe(resolution=size, **choices)  # type: ignore[arg-type]
    for samples, white in (
        (noise(height, width), 255.0),
        (noise(height, width, bits=16), 65535.0),
        (noise(height, width, bits=16), 4095.0),
    ):
        out, small = torch.full((size, size), torch.nan), torch.full((8, 8), torch.nan)
        prepare_tensor(torch.from_numpy(samples)[..., None], recipe, out, small, white=white)
        np.testing.assert_allclose(out.numpy(), prepared(samples, white, recipe), atol=1e-5)
        expected = np.empty((8, 8), dtype=np.float32)
        prepare(Film(samples, white), recipe, expected)
        np.testing.assert_allclose(small.numpy(), expected, atol=1e-5)


def test_colour_tensors_become_luma() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    out = torch.empty(20, 20)
    prepare_tensor(torch.from_numpy(rgb), PixelRecipe(resolution=20), out, white=255)
    np.testing.assert_allclose(out.numpy(), (rgb @ np.array([0.299, 0.587, 0.114])) / 127.5 - 1, atol=1e-6)
