"""Iterative stratification: no patient on two sides, every label in its share, the same again, and better than chance."""

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.stratified_split import stratify

SHARES = (0.7, 0.1, 0.2)


def data_set(seed=0, patients=400):
    """Films of patients who have 1 to 4 of them, with labels from common to rare that go together in patients."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    ill = rng.random((patients, 4)) < [0.4, 0.15, 0.05, 0.025]
    labels = (ill[who] & (rng.random((len(who), 4)) < 0.8)).astype(np.float32)
    return [f"p{number}" for number in who], labels


def means_of(patients, labels):
    """Each patient's mean labels."""
    films = {name: [] for name in patients}
    for name, row in zip(patients, labels, strict=True):
        films[name].append(row)
    return {name: np.mean(rows, axis=0) for name, rows in films.items()}


def worst(patients, labels, sides):
    """The largest distance of a side's amount of a label from its share, in shares of what there is."""
    means = means_of(patients, labels)
    side_of = dict(zip(patients, sides, strict=True))
    total = sum(means.values())
    held = [sum((mean for name, mean in means.items() if side_of[name] == side), start=np.zeros(4)) / total for side in range(len(SHARES))]
    return max(float(np.abs(part - share).max()) for part, share in zip(held, SHARES, strict=True))


@pytest.fixture(scope="module")
def films():
    return data_set()


def test_no_patient_is_on_two_sides(films):
    patients, labels = films
    sides = stratify(patients, labels, SHARES, seed=0)
    assert sides.shape == (len(patients),)
    assert len(set(zip(patients, sides.tolist(), strict=True))) == len(set(patients))


def test_sides_have_their_shares_of_patients_and_of_every_label(films):
    patients, labels = films
    sides = stratify(patients, labels, SHARES, seed=0)
    counts = np.bincount(list(dict(zip(patients, sides, strict=True)).values()), minlength=3) / len(set(patients))
    np.testing.assert_allclose(counts, SHARES, atol=0.02)
    assert worst(patients, labels, sides) < 0.08


def test_it_is_better_than_chance(films):
    patients, labels = films
    names = sorted(set(patients))

    def at_random(seed):
        drawn = dict(zip(names, np.random.default_rng(seed).choice(3, len(names), p=SHARES), strict=True))
        return worst(patients, labels, [drawn[name] for name in patients])

    by_chance = np.median([at_random(seed) for seed in range(15)])
    assert max(worst(patients, labels, stratify(patients, labels, SHARES, seed=seed)) for seed in range(3)) < by_chance / 2


def test_the_order_of_films_is_nothing_and_the_seed_is_something(films):
    patients, labels = films
    sides = stratify(patients, labels, SHARES, seed=0)
    order = np.random.default_rng(1).permutation(len(patients))
    shuffled = stratify([patients[film] for film in order], labels[order], SHARES, seed=0)
    assert np.array_equal(shuffled, sides[order])
    assert not np.array_equal(stratify(patients, labels, SHARES, seed=1), sides)


def test_a_rare_label_is_on_both_sides():
    """Two of 100 patients have it: one on each of two equal sides, which chance gives half the time."""
    labels = np.zeros((100, 1))
    labels[[3, 70]] = 1
    for seed in range(6):
        sides = stratify([str(film) for film in range(100)], labels, (0.5, 0.5), seed=seed)
        assert sides[3] != sides[70]
        assert sides.sum() == 50


def test_small_sets():
    assert sorted(stratify(["a", "b"], np.ones((2, 1)), (0.9, 0.1), seed=0)) == [0, 1]
    assert sorted(stratify(["a", "b"], np.zeros((2, 2)), (0.9, 0.1), seed=0)) == [0, 1]
    assert stratify(["a", "a"], np.ones((2, 1)), (0.9, 0.1), seed=0).tolist() == [0, 0]
    assert stratify(["a", "b", "c"], np.ones((3, 1)), (1.0, 0.0), seed=0).tolist() == [0, 0, 0]
    assert len(stratify([], np.ones((0, 2)), SHARES, seed=0)) == 0
    assert set(stratify(list("abcdef"), np.zeros((6, 0)), (0.5, 0.5), seed=0)) == {0, 1}


@pytest.mark.parametrize("shares", [(0.5, 0.4), (1.5, -0.5), ()])
def test_shares_that_make_no_sense_are_refused(shares):
    with pytest.raises(ConfigError, match="shares must be 0 or more, with a sum of 1"):
        stratify(["a"], np.ones((1, 1)), shares, seed=0)
