"""What a linear probe tells from numbers: much where they hold the label, nothing where they do not, and how sure that is."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.rates.rated_probe import areas, mean_area, standard_error
from engine.errors import ConfigError
from engine.latents.film_labels import Marked, Marks


def marked(marks: Marks) -> Marked:
    return Marked(places=np.arange(len(marks)), marks=marks, unknown=0)


def test_numbers_that_hold_a_label_tell_it_and_others_do_not() -> None:
    rng = np.random.default_rng(0)
    marks = np.arange(100) % 3 == 0
    noise = rng.normal(size=(100, 40)).astype(np.float32)
    noise[:, 7] = 5  # the same in all films
    telling = noise.copy()
    telling[:, 3] += 4 * marks
    assert areas(telling, {"mass": marked(marks)}, seed=0)["mass"].value > 0.9
    assert 0.25 < areas(noise, {"mass": marked(marks)}, seed=0)["mass"].value < 0.75


def test_only_films_that_the_label_is_known_of_count() -> None:
    marks = np.arange(40) % 2 == 0
    numbers = np.where(marks, 1.0, -1.0)[:, None].astype(np.float32) @ np.ones((1, 3), dtype=np.float32)
    shuffled = np.concatenate([np.zeros((5, 3), dtype=np.float32), numbers])
    found = areas(shuffled, {"mass": Marked(places=np.arange(5, 45), marks=marks, unknown=5)}, seed=0)
    assert found["mass"].value == 1
    assert mean_area({"a": found["mass"], "b": found["mass"]}) == found["mass"]


def test_too_few_of_a_class_are_refused() -> None:
    marks = np.arange(30) < 4
    with pytest.raises(ConfigError, match="needs 5 films or more with the attribute and without it: 4 and 26"):
        areas(np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32), {"mass": marked(marks)}, seed=0)


def test_the_standard_error_is_that_of_resampling() -> None:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(400):
        with_it, without = rng.normal(1, 1, 30), rng.normal(0, 1, 60)
        found.append((with_it[:, None] > without[None]).mean())
    assert standard_error(float(np.mean(found)), 30, 60) == pytest.approx(np.std(found), rel=0.15)
