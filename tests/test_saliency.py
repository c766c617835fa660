"""Saliency maps against the paper's words taken pixel by pixel, and against phantoms of which the disease is known."""

from __future__ import annotations

import numpy as np
import pytest

from engine.saliency import STEPS, otsu, saliency, to_steps
from engine.source.phantom import draw_labels, render_phantom

SIZE = 24


def grown(start: tuple[int, int], mask: np.ndarray) -> set[tuple[int, int]]:
    """All pixels of a mask that can be walked to from one of them, over corners too."""
    found, edge = {start}, [start]
    while edge:
        row, column = edge.pop()
        for at in [(row + dy, column + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
            if at not in found and 0 <= at[0] < len(mask) and 0 <= at[1] < len(mask) and mask[at]:
                found.add(at)
                edge.append(at)
    return found


def by_hand(stored: np.ndarray, box: tuple[int, int, int, int], floor: float) -> np.ndarray:
    """The definition in plain loops: threshold of the box, pieces that have a pixel in it, normalised by their greatest."""
    x0, y0, x1, y1 = box
    size = np.abs(stored.astype(int))
    values = size[y0:y1, x0:x1].ravel()
    scores = {}
    for level in range(STEPS):
        low, high = values[values <= level], values[values > level]
        if len(low) and len(high):
            scores[level] = len(low) * len(high) * (low.mean() - high.mean()) ** 2
    out = np.zeros(stored.shape)
    if not scores:
        return out
    mask = (size > max(scores, key=lambda level: (round(scores[level], 6), -level))) & (size / STEPS >= floor)
    for row in range(y0, y1):
        for column in range(x0, x1):
            if mask[row, column]:
                for at in grown((row, column), mask):
                    out[at] = size[at]
    return np.rint(out * 255 / out.max()) if out.any() else out


@pytest.mark.parametrize("seed", range(6))
def test_saliency_is_what_the_paper_says(seed: int) -> None:
    draw = np.random.default_rng(seed)
    residue = draw.normal(0, 0.1, (SIZE, SIZE))
    for _ in range(5):
        y, x = draw.integers(0, SIZE - 4, 2)
        residue[y : y + 4, x : x + 5] += draw.choice([-0.6, 0.4, 0.8])
    box, floor = (5, 4, 18, 20), 0.05 * (seed % 3)
    stored = to_steps(residue)
    np.testing.assert_array_equal(saliency(stored, box, floor=floor), by_hand(stored, box, floor))


def test_pieces_outside_the_box_go_and_those_that_reach_into_it_stay_whole() -> None:
    stored = np.zeros((SIZE, SIZE), np.int8)
    stored[2:4, 2:4] = 100  # outside
    stored[10:12, 4:14] = -50  # reaches in from x = 4
    stored[12, 14] = 25  # over a corner
    found = saliency(stored, (8, 6, 20, 20))
    assert not found[2:4, 2:4].any()
    assert (found[10:12, 4:14] == 255).all()  # dark residues count as bright ones do
    assert (found[12, 14], np.count_nonzero(found)) == (128, 21)


@pytest.mark.parametrize("level", [0, 3, -90])
def test_a_residue_without_parts_has_no_salient_ones(level: int) -> None:
    assert not saliency(np.full((SIZE, SIZE), level, np.int8), (0, 0, SIZE, SIZE)).any()


def test_under_the_floor_nothing_is_salient() -> None:
    noise = to_steps(np.random.default_rng(0).normal(0, 0.01, (SIZE, SIZE)))
    assert saliency(noise, (0, 0, SIZE, SIZE)).any()
    assert not saliency(noise, (0, 0, SIZE, SIZE), floor=0.1).any()


def test_residues_are_stored_to_half_a_gray() -> None:
    residue = np.linspace(-1.2, 1.2, 1001)
    stored = to_steps(residue)
    assert (stored.dtype, stored.min(), stored.max()) == (np.int8, -127, 127)
    assert np.abs(stored / STEPS - residue.clip(-1, 1)).max() <= 0.5 / STEPS + 1e-9


def test_otsu_parts_two_heaps() -> None:
    assert otsu(np.array([1, 2, 2, 3, 40, 41, 43], np.uint8)) == 3
    assert otsu(np.array([7, 7, 7], np.uint8)) is None


def test_a_perfect_residue_shows_the_opacity_of_a_phantom() -> None:
    """The residue of a film with its opacity and the same film without: what a perfect model would give."""
    overlaps = []
    for index in [index for index in range(60) if draw_labels(21, index)["opacity"]][:4]:
        film, healthy = (render_phantom(21, index, size=64, without=without) for without in ((), ("opacity",)))
        residue = (film.pixels.astype(float) - healthy.pixels.astype(float)) / 127.5
        salient, truth = saliency(to_steps(residue), (0, 0, 64, 64), floor=0.05) > 0, film.masks["opacity"]
        overlaps.append((salient & truth).sum() / max(salient.sum(), 1))
    assert len(overlaps) == 4
    assert np.mean(overlaps) > 0.9
