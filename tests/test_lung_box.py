"""The box of the lungs against phantoms whose lungs are known, and boxes of another program on their way to a film."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.decode.film import Film
from engine.decode.prepare import prepare
from engine.errors import ConfigError
from engine.lung_box import find_lungs, whole
from engine.lung_file import on_film, read_lung_file
from engine.recipe import PixelRecipe
from engine.source.phantom import render_phantom
from engine.source.phantoms.truth import box_of


def overlap(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Intersection over union of two boxes."""
    across = max(0, min(one[2], other[2]) - max(one[0], other[0]))
    down = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return across * down / (sum(areas) - across * down)


def test_boxes_are_those_of_the_lungs_of_phantoms() -> None:
    found, floor = [], []
    for index in range(10):
        phantom = render_phantom(31, index, size=64)
        truth = box_of(phantom.masks["lungs"])
        found.append(overlap(find_lungs(phantom.pixels) or whole(phantom.pixels), truth))
        floor.append(overlap(whole(phantom.pixels), truth))
    assert np.mean(found) > 0.9
    assert np.mean(floor) < 0.8  # all of the film would not do


def test_a_box_does_not_depend_on_brightness_or_size() -> None:
    film = render_phantom(31, 3, size=128).pixels
    box = find_lungs(film)
    assert box is not None
    assert find_lungs(film / np.float32(127.5) - 1) == box
    half = find_lungs(film.reshape(64, 2, 64, 2).mean(axis=(1, 3)))
    assert half is not None
    assert np.abs(np.array(half) * 2 - box).max() <= 4


@pytest.mark.parametrize(
    "film", [np.zeros((32, 32)), np.random.default_rng(0).random((48, 48)), np.eye(64)], ids=["blank", "noise", "line"]
)
def test_where_no_lungs_are_there_is_no_box(film: np.ndarray) -> None:
    assert find_lungs(film) is None
    assert whole(film) == (0, 0, len(film), len(film))


@pytest.mark.parametrize("square", ["pad", "crop", "stretch"])
@pytest.mark.parametrize(("height", "width"), [(60, 41), (41, 60), (50, 50)])
def test_a_box_lands_where_the_recipe_puts_its_pixels(height: int, width: int, square: str) -> None:
    samples = np.zeros((height, width), np.uint8)
    samples[20:31, 18:29] = 255
    out = np.empty((100, 100), np.float32)
    prepare(Film(samples, 255.0), PixelRecipe(resolution=100, square=square), out)  # type: ignore[arg-type]
    box = on_film((18, 20, 29, 31), source=(height, width), side=100, square=square)  # type: ignore[arg-type]
    assert box is not None
    assert np.abs(np.array(box) - box_of(out > -0.99)).max() <= 1


def test_what_the_crop_leaves_of_a_box() -> None:
    assert on_film((0, 0, 5, 50), source=(50, 100), side=50, square="crop") is None
    assert on_film((0, 0, 30, 50), source=(50, 100), side=50, square="crop") == (0, 0, 5, 50)


def test_a_file_of_boxes(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("id,who,x0,y0,x1,y1\na,me,1,2,3.5,4\nb,me,0,0,9,9\n")
    assert read_lung_file(tmp_path / "boxes.csv").boxes == {"a": (1, 2, 3.5, 4), "b": (0, 0, 9, 9)}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,x0,y0,x1\na,1,2,3\n", "no column y1"),
        ("id,x0,y0,x1,y1\na,1,2,3,4\nb,3,2,1,4\n", "in line 3"),
        ("id,x0,y0,x1,y1\na,1,2,3,many\n", "in line 2"),
        ("id,x0,y0,x1,y1\na,1,2,3\n", "in line 2"),
        ("id,x0,y0,x1,y1\na,1,2,3,nan\n", "in line 2"),
        ("id,x0,y0,x1,y1\na,1,2,3,4\na,1,2,3,4\n", "twice, in line 3"),
        ("", "no column id"),
    ],
)
def test_a_file_that_is_no_table_of_boxes(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_lung_file(tmp_path / "boxes.csv")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_lung_file(tmp_path / "none.csv")
