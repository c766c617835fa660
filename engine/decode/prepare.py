"""The pixel recipe on the CPU: one film becomes gray float32 pixels in [-1, 1] at the sizes that are wanted."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from engine.decode.film import Film, Unit
from engine.recipe import PixelRecipe, Resize, Square


def prepare(film: Film, recipe: PixelRecipe, *outs: Unit) -> None:
    """Writes the film into each of `outs` [S, S] float32 in [-1, 1], resized to that S.

    Padding, cropping and resizing keep proportions, so the division by the white level waits until there is less to divide.
    """
    levels, white = to_levels(film), film.white
    if recipe.intensity == "minmax":
        levels, white = own_range(levels)
    if recipe.equalise == "histogram":
        levels, white = equalise(levels / np.float32(white)), 1.0
    squared = make_square(levels, recipe.square)
    for out in outs:
        resized = resize(squared, len(out), recipe.resize, white=white)
        np.divide(resized, np.float32(white / 2), out=out)
        np.subtract(out, 1, out=out)


def to_levels(film: Film) -> Unit:
    """Samples as float32 in [0, white]; what lies beyond is cut."""
    levels = film.samples.astype(np.float32)
    if film.samples.dtype.kind == "f" or film.white < np.iinfo(film.samples.dtype).max:
        np.clip(levels, 0, np.float32(film.white), out=levels)
    return levels


def own_range(levels: Unit) -> tuple[Unit, float]:
    """Levels above the film's lowest, and the new white level, its highest; of a film of one gray all are 0."""
    lowest, highest = levels.min(), levels.max()
    return levels - lowest, float(highest - lowest) or 1.0


def equalise(unit: Unit) -> Unit:
    """The cumulative histogram of 256 bins, centred on k/255 and joined linearly, so that deeper films keep their grades.

    On an 8-bit film these are the levels of the classic algorithm: (c(v) - c_min) / (n - c_min). A film of one gray stays as it is.
    """
    levels = unit * np.float32(255)
    counts = np.bincount(np.rint(levels).astype(np.uint8).ravel(), minlength=256)
    cumulative = np.cumsum(counts)
    first = int(counts[np.argmax(counts > 0)])
    if first == unit.size:
        return unit
    heights = np.clip((cumulative - first) / (unit.size - first), 0, 1)
    return np.asarray(np.interp(levels, np.arange(256), heights), dtype=np.float32)


def make_square(levels: Unit, how: Square) -> Unit:
    """Pads with black to the longer side, or crops to the shorter; centred, an odd pixel at the end. "stretch" changes nothing yet."""
    height, width = levels.shape
    if how == "stretch" or height == width:
        return levels
    if how == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return levels[top : top + side, left : left + side]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    padded = np.zeros((side, side), dtype=np.float32)
    padded[top : top + height, left : left + width] = levels
    return padded


def resize(levels: Unit, size: int, how: Resize, *, white: float) -> Unit:
    """To [size, size]: OpenCV's INTER_AREA or Pillow's LANCZOS, both on float32; what overshoots [0, white] is cut."""
    height, width = levels.shape
    if (height, width) == (size, size):
        return levels
    if how == "lanczos":
        image = Image.fromarray(np.ascontiguousarray(levels)).resize((size, size), Image.Resampling.LANCZOS)
        return np.asarray(np.clip(np.asarray(image), 0, np.float32(white)))
    if (height > size) != (width > size) and size not in (height, width):
        # OpenCV averages only when both sides shrink; stretched films that shrink on one side alone do it in two steps.
        levels = _area(levels, min(height, size), min(width, size))
    resized = _area(levels, size, size)
    np.clip(resized, 0, np.float32(white), out=resized)
    return resized


def _area(levels: Unit, height: int, width: int) -> Unit:
    while levels.shape[0] % (2 * height) == 0 and levels.shape[1] % (2 * width) == 0:
        # By halves it is the same average, and OpenCV has a quick way for 2 by 2: 1024 to 256 takes a third of the time.
        levels = np.asarray(cv2.resize(levels, (levels.shape[1] // 2, levels.shape[0] // 2), interpolation=cv2.INTER_AREA))
    if levels.shape == (height, width):
        return levels
    return np.asarray(cv2.resize(levels, (width, height), interpolation=cv2.INTER_AREA))
