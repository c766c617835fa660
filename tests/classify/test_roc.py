"""ROC figures against pairs counted one by one, and intervals against a bootstrap in a plain loop."""

import math

import numpy as np
import pytest

from engine.classify.roc import (
    auc,
    average_precision,
    balanced_threshold,
    bootstrap_areas,
    bootstrap_auc,
    interval,
    mean_areas,
    rates,
    youden_threshold,
)


def drawn(n=40, *, seed=0, levels=9):
    """Scores with ties, and marks that go with them."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, n) / 4
    return scores, (rng.random(n) < 0.2 + scores / 4).astype(np.float32)


def pairs(scores, marks):
    wins = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a, x in zip(scores, marks, strict=True)
        for b, y in zip(scores, marks, strict=True)
        if x > y
    ]
    return sum(wins) / len(wins) if wins else math.nan


@pytest.mark.parametrize("seed", range(5))
def test_auc_counts_pairs(seed):
    scores, marks = drawn(seed=seed)
    assert auc(scores, marks) == pytest.approx(pairs(scores, marks), abs=1e-12)


def test_auc_of_what_is_certain():
    assert auc([0.1, 0.2, 0.9], [0, 0, 1]) == 1
    assert auc([0.1, 0.2, 0.9], [1, 0, 0]) == 0
    assert auc([2.0, 2.0, 2.0], [1, 0, 0]) == 0.5
    assert math.isnan(auc([0.1, 0.2], [1, 1]))
    assert math.isnan(auc([], []))
    with pytest.raises(ValueError, match="scores must be finite"):
        auc([math.nan, 1.0], [0, 1])


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_maximises_youdens_j(seed):
    scores, marks = drawn(seed=seed)

    def j(cut):
        said = scores >= cut
        return said[marks > 0].mean() - said[marks == 0].mean()

    found = youden_threshold(scores, marks)
    cuts = np.unique(np.concatenate([scores, scores + 1e-6, [scores.min() - 1]]))
    assert j(found) == pytest.approx(max(map(j, cuts)))
    if found > scores.min():
        assert found not in scores  # between two of them, so that neither rounds to the other side


def test_the_threshold_of_what_is_certain():
    assert youden_threshold([0.0, 1.0, 3.0], [0, 0, 1]) == 2
    assert youden_threshold([0.0, 1.0], [1, 1]) is None
    assert youden_threshold([], []) is None


@pytest.mark.parametrize("seed", range(5))
def test_the_balanced_threshold_makes_sensitivity_and_specificity_alike(seed):
    scores, marks = drawn(seed=seed)

    def gap(cut):
        said = scores >= cut
        return abs(said[marks > 0].mean() - (~said)[marks == 0].mean())

    cuts = np.unique(np.concatenate([scores, scores + 1e-6, [scores.min() - 1]]))
    assert gap(balanced_threshold(scores, marks)) == pytest.approx(min(map(gap, cuts)))


def test_thresholds_and_their_rates_by_hand():
    """From 0.5 on three films of four are found and three of four spared; from 1.5 on two are found and all spared. J is 1/2 for both."""
    scores, marks = [0, 0, 0, 1, 0, 1, 2, 2], [0, 0, 0, 0, 1, 1, 1, 1]
    assert balanced_threshold(scores, marks) == 0.5
    assert youden_threshold(scores, marks) == 1.5
    assert balanced_threshold([0.0, 1.0], [1, 1]) is None
    assert rates(scores, marks, 0.5) == {"sensitivity": 0.75, "specificity": 0.75, "precision": 0.75, "f1": 0.75}
    assert rates(scores, marks, 1.5) == {"sensitivity": 0.5, "specificity": 1.0, "precision": 1.0, "f1": 2 / 3}


def test_rates_without_films_to_count_are_not_numbers():
    found = rates([0.0, 1.0], [0, 0], 2.0)
    assert found["specificity"] == 1
    assert all(math.isnan(found[name]) for name in ("sensitivity", "precision", "f1"))


def test_average_precision_by_hand():
    """Films with the label are the first, third and fourth from above: the mean of 1/1, 2/3 and 3/4."""
    assert average_precision([0.5, 0.9, 0.8, 0.7, 0.6], [0, 1, 0, 1, 1]) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert average_precision([2.0, 2.0, 1.0, 1.0], [1, 0, 1, 0]) == 0.5  # films of one score count together: no order makes them better
    assert average_precision([0.1, 0.2, 0.9], [0, 0, 1]) == 1
    assert average_precision([0.1, 0.2, 0.9], [1, 0, 0]) == pytest.approx(1 / 3)
    assert math.isnan(average_precision([0.1, 0.2], [1, 1]))
    assert math.isnan(average_precision([], []))


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_adds_up_over_cuts(seed):
    scores, marks = drawn(seed=seed)
    total = recall = 0.0
    for cut in sorted(set(scores), reverse=True):
        found = rates(scores, marks, cut)
        total += (found["sensitivity"] - recall) * found["precision"]
        recall = found["sensitivity"]
    assert average_precision(scores, marks) == pytest.approx(total)


def test_intervals_are_those_of_a_plain_bootstrap():
    columns = [drawn(30, seed=seed) for seed in (1, 2)]
    scores, marks = (np.stack(part, axis=1) for part in zip(*columns, strict=True))
    every, macro = bootstrap_auc(scores, marks, resamples=60, seed=7)
    draw = np.random.default_rng(7)
    taken = [draw.integers(0, 30, 30) for _ in range(60)]
    areas = np.array([[pairs(scores[films, c], marks[films, c]) for c in (0, 1)] for films in taken])
    for c, found in enumerate(every):
        assert found.value == pytest.approx(pairs(scores[:, c], marks[:, c]))
        assert (found.low, found.high) == pytest.approx(tuple(np.percentile(areas[:, c], [2.5, 97.5])))
    assert (macro.low, macro.high) == pytest.approx(tuple(np.percentile(areas.mean(axis=1), [2.5, 97.5])))
    assert macro.value == pytest.approx(np.mean([found.value for found in every]))
    assert bootstrap_auc(scores, marks, resamples=60, seed=7) == (every, macro)
    assert bootstrap_auc(scores, marks, resamples=60, seed=8)[1] != macro


def test_a_label_without_films_of_both_kinds_has_no_figure():
    scores, marks = drawn(30)
    both = np.stack([marks, np.ones(30)], axis=1)
    (known, unknown), macro = bootstrap_auc(np.stack([scores, scores], axis=1), both, resamples=20, seed=0)
    assert all(map(math.isnan, (unknown.value, unknown.low, unknown.high)))
    assert macro == known
    rare = np.zeros((30, 1))
    rare[0] = 1  # absent from a third of the draws
    (found,), _ = bootstrap_auc(scores[:, None], rare, resamples=50, seed=0)
    assert 0 <= found.low <= found.high <= 1
    empty, macro = bootstrap_auc(np.empty((0, 2)), np.empty((0, 2)), resamples=5, seed=0)
    assert all(math.isnan(found.value) for found in (*empty, macro))


def test_other_scores_of_the_same_films_meet_the_same_draws():
    scores, marks = (np.stack(each, axis=1) for each in zip(drawn(seed=1), drawn(seed=2), strict=True))
    one = bootstrap_areas(scores, marks, resamples=30, seed=7)
    assert one.shape == (31, 2)
    assert np.array_equal(one, bootstrap_areas(scores * 3 + 1, marks, resamples=30, seed=7))
    assert mean_areas(one) == pytest.approx(one.mean(axis=1))


def test_films_of_one_group_are_drawn_together():
    scores, marks = drawn(n=12, seed=3)
    scores, marks = scores[:, None], marks[:, None]
    alone = bootstrap_areas(scores, marks, resamples=40, seed=7)
    thrice = bootstrap_areas(
        np.repeat(scores, 3, axis=0), np.repeat(marks, 3, axis=0), resamples=40, seed=7, groups=np.arange(12).repeat(3)
    )
    assert thrice == pytest.approx(alone, nan_ok=True)


def test_a_label_of_one_class_does_not_count_for_the_mean():
    scores, marks = drawn(seed=1)
    areas = bootstrap_areas(np.stack([scores, scores], axis=1), np.stack([marks, 0 * marks], axis=1), resamples=5, seed=0)
    assert mean_areas(areas) == pytest.approx(areas[:, 0])
    assert math.isnan(interval(areas[:, 1]).value)
    assert np.isnan(mean_areas(areas[:, 1:])).all()
