"""Directions between classes whose true direction and separation are known."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.latents.directions import METHODS, conditioned, find_direction, judge_direction, paired, separation, unit


def two_classes(count: int = 400, size: int = 12, apart: float = 4.0, seed: int = 0):
    """Codes of two classes with one covariance that is far from round, `apart` standard deviations from one another along the best line."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(size, size)) / np.sqrt(size) + np.eye(size)
    marks = np.arange(count) % 3 == 0
    toward = rng.normal(size=size)
    shift = mix @ (apart * toward / np.linalg.norm(toward))
    return rng.normal(size=(count, size)) @ mix.T + marks[:, None] * shift, marks, mix, shift


def test_separation_is_the_distance_of_means_over_the_mean_spread() -> None:
    along, marks = np.array([0.0, 2.0, 10.0, 14.0]), np.array([False, False, True, True])
    assert separation(along, marks) == pytest.approx((12 - 1) / ((2 + 1) / 2))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_direction_is_of_length_1_and_points_to_the_films_with_it(method: str) -> None:
    values, marks, _, _ = two_classes()
    direction = find_direction(values, marks, method)
    assert np.linalg.norm(direction) == pytest.approx(1)
    assert separation(values @ direction, marks) > 1


def test_lda_finds_the_best_line() -> None:
    values, marks, mix, shift = two_classes(count=4000)
    best = np.linalg.solve(mix @ mix.T, shift)
    assert unit(best) @ find_direction(values, marks, "lda") > 0.995
    figures = judge_direction(values, marks, "lda", seed=0)
    assert figures.separation == pytest.approx(4.0, abs=0.2)
    assert figures.auc > 0.99
    assert figures.accuracy > 0.95
    assert (figures.films_with, figures.films_without) == (1334, 2666)


def test_the_mean_difference_is_that() -> None:
    values, marks, _, _ = two_classes()
    assert find_direction(values, marks, "mean") == pytest.approx(unit(values[marks].mean(0) - values[~marks].mean(0)))


def test_figures_are_of_films_that_a_direction_was_not_found_on() -> None:
    rng = np.random.default_rng(1)
    values, marks = rng.normal(size=(120, 100)), rng.random(120) < 0.5
    figures = judge_direction(values, marks, "lda", seed=0)
    assert figures.separation_in_sample > 1.5  # of labels that mean nothing
    assert abs(figures.separation) < 0.6
    assert 0.3 < figures.auc < 0.7


def test_folds_depend_on_the_seed_alone() -> None:
    values, marks, _, _ = two_classes(apart=1.0)
    assert judge_direction(values, marks, "svm", seed=3) == judge_direction(values, marks, "svm", seed=3)


def test_numbers_that_never_change_do_no_harm() -> None:
    values, marks, _, _ = two_classes()
    values[:, 4] = 7.0
    for method in ("svm", "lda"):
        assert find_direction(values, marks, method)[4] == pytest.approx(0, abs=1e-9)


def test_pairs_give_the_mean_of_their_differences() -> None:
    rng = np.random.default_rng(2)
    without, moved = rng.normal(size=(30, 5)), np.array([0.0, 3.0, 0.0, 4.0, 0.0])
    assert paired(without, without + moved) == pytest.approx(moved / 5)


def test_a_conditioned_direction_leaves_the_others_alone() -> None:
    rng = np.random.default_rng(3)
    direction, *others = (unit(rng.normal(size=6)) for _ in range(4))
    found = conditioned(direction, others)
    assert np.linalg.norm(found) == pytest.approx(1)
    assert np.stack(others) @ found == pytest.approx(np.zeros(3), abs=1e-12)
    assert found @ direction > 0
    assert conditioned(direction, []) is direction


def test_what_gives_no_direction_is_one_clear_line() -> None:
    values, _, _, _ = two_classes()
    with pytest.raises(ConfigError, match="2 films or more with the attribute and without it: 0 and 400"):
        find_direction(values, np.zeros(400, dtype=bool), "lda")
    with pytest.raises(ConfigError, match="5 films or more with the attribute and without it: 3 and 397"):
        judge_direction(values, np.arange(400) < 3, "lda", seed=0)
    with pytest.raises(ConfigError, match="codes of both classes have one mean"):
        find_direction(np.ones((10, 3)), np.arange(10) < 5, "mean")
    with pytest.raises(ConfigError, match="nothing is left"):
        conditioned(np.array([1.0, 0, 0]), [np.array([1.0, 0, 0])])
    with pytest.raises(ConfigError, match="pairs need one film or more"):
        paired(values[:0], values[:0])
